"""Figures: what is drawn, without looking at pixels."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import kconvert
from kconvert.errors import InputError
from kconvert.profiling import compare, numerical
from kconvert.profiling.plots import label
from tests.models import MODELS, randomise
from tests.profiling.test_keras_outputs import compiled, samples

HOSTILE = ['"); system("x', "\\frac{$$}{", "$x_{1}^", "new\nline", "long_" * 30, "日本語"]


@pytest.fixture(scope="module")
def net() -> tuple[Any, kconvert.HLSModel, Any]:
    model = MODELS["conv2d_net"]()
    return model, compiled(model), samples(model, 40)


def drawn(figure: Figure) -> None:
    """Draw the whole figure, which is when matplotlib reads its texts."""
    figure.savefig(io.BytesIO(), format="png", dpi=20)


def row_names(figure: Figure, axes: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[axes].get_yticklabels()]


def legend(figure: Figure, axes: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[axes].get_legend().get_texts()]


@pytest.mark.parametrize("plot_type", ["dist_diff", "norm_diff"])
def test_compare(net: tuple[Any, kconvert.HLSModel, Any], plot_type: str) -> None:
    model, hls_model, x = net
    figure = compare(model, hls_model, x, plot_type=plot_type)
    drawn(figure)
    (axes,) = figure.axes
    assert row_names(figure) == [n.replace("bn1", "conv1 + bn1") for n in hls_model.trace(x)]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first layer is the uppermost
    assert axes.get_xscale() == "log"
    assert "fixed<37,17,TRN,WRAP>" in {text.get_text() for text in axes.texts}
    marks = axes.patches if plot_type == "dist_diff" else [line for line in axes.lines if line.get_marker() == "o"]
    assert len(marks) == len(hls_model.trace(x))


def test_compare_shows_what_it_draws(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    (axes,) = compare(model, hls_model, x).axes
    low, high = axes.get_xlim()
    for box in axes.patches:
        assert low < box.get_x() <= box.get_x() + box.get_width() < high


def test_compare_several(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    narrow = kconvert.convert_from_keras_model(
        model, kconvert.config_from_keras_model(model, default_precision="fixed<8,4>")
    )
    narrow.compile()
    figure = compare(model, {"16 bit": hls_model, "8 $bit": narrow}, x)
    drawn(figure)
    assert legend(figure) == ["16 bit", "8 $bit"]
    assert len(figure.axes[0].patches) == 2 * len(hls_model.trace(x))
    middles: dict[Any, list[float]] = {}
    for box in figure.axes[0].patches:
        middles.setdefault(box.get_facecolor(), []).append(box.get_x())
    wide, coarse = middles.values()
    assert np.all(np.array(coarse) > np.array(wide))


def test_equal_outputs_are_said_to_be_equal() -> None:
    import keras

    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.ReLU(name="relu")])
    for plot_type in ("dist_diff", "norm_diff"):
        figure = compare(model, compiled(model), np.array([[1.0, -2, 0.5, 3]]), plot_type)
        drawn(figure)
        assert "equal" in {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("plot", ["boxplot", "violinplot", "histogram"])
def test_numerical(net: tuple[Any, kconvert.HLSModel, Any], plot: str) -> None:
    model, hls_model, x = net
    figure = numerical(model, hls_model, x, plot=plot)
    drawn(figure)
    weights, outputs = figure.axes
    assert row_names(figure)[:2] == ["conv1 + bn1 \u00b7 weight", "conv1 + bn1 \u00b7 bias"]
    assert row_names(figure, 1)[:3] == ["image", "pad", "conv1 + bn1"]
    assert legend(figure) == ["float", "fixed point", "range of the type"]
    for axes in (weights, outputs):
        rows = len(axes.get_yticklabels())
        shapes = len(axes.patches) + len(axes.collections)
        assert shapes >= 3 * rows  # the shade and two distributions
    shade = outputs.patches[0]  # ap_fixed<16,6>: 2**-10 to nearly 2**5
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((-10, 5), abs=1e-3)


def test_numerical_of_one_side(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    assert legend(numerical(model)) == ["float"]
    figure = numerical(hls_model=hls_model, X=x)
    assert len(figure.axes) == 2
    assert len(numerical(hls_model=hls_model).axes) == 1


def test_model_without_weights() -> None:
    import keras

    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.ReLU(name="relu")])
    figure = numerical(model, compiled(model), samples(model, 0))
    drawn(figure)
    assert (row_names(figure), row_names(figure, 1)) == ([], ["x", "relu"])


def test_names_are_text() -> None:
    import keras

    x = first = keras.Input((4,), name="in")
    for name in HOSTILE:
        x = keras.layers.Dense(4, activation="relu", name=name)(x)
    model = randomise(keras.Model(first, x))
    hls_model = compiled(model)
    for figure in (compare(model, hls_model, samples(model)), numerical(model, hls_model, samples(model))):
        with pytest.warns(UserWarning, match="Glyph"):  # matplotlib's own font has no Japanese
            drawn(figure)
        for axes in figure.axes:
            for text in axes.get_yticklabels():
                assert not text.get_parse_math()
                assert "\n" not in text.get_text()


def test_label() -> None:
    assert label("fc1") == "fc1"
    assert label("a\nb\u202e") == "a\ufffdb\ufffd"
    assert len(label("x" * 100)) <= 36


def test_nothing_global_is_touched(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    model, hls_model, x = net
    compare(model, hls_model, x)
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize("function", [compare, numerical])
def test_unknown_kind(net: tuple[Any, kconvert.HLSModel, Any], function: Any) -> None:
    model, hls_model, x = net
    with pytest.raises(InputError, match="choose from"):
        function(model, hls_model, x, "boxplots")
    with pytest.raises(InputError, match="empty"):
        compare(model, {}, x)


def test_values_of_one_size_and_zeros_can_be_seen() -> None:
    import keras

    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(4, name="fc")])
    model.set_weights([np.where(np.eye(4), 1.0, -1.0), np.zeros(4)])
    (axes,) = numerical(hls_model=kconvert.convert_from_keras_model(model)).axes
    drawn(axes.figure)
    assert [text.get_text() for text in axes.texts].count("all 0") == 2  # the bias, as float and in hardware
    assert not any((lines.get_color() == 1).all() for lines in axes.collections)  # a white line on white
