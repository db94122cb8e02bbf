"""Figures: what is drawn, without looking at pixels."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import kconvert
from kconvert.errors import InputError, MissingPackageError
from kconvert.profiling import compare, numerical, roc
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
    assert "fixed<37,17>" in {text.get_text() for text in axes.texts}
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


# ***** ROC *****


def scores(classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, classes, count)
    return truth, np.eye(classes)[truth] + rng.normal(size=(count, classes))


def curves(figure: Figure) -> list[Any]:
    return [line for line in figure.axes[0].lines if len(line.get_xdata())]


def test_roc() -> None:
    from sklearn.metrics import auc, roc_auc_score

    truth, good = scores(3)
    bad = good + np.random.default_rng(6).normal(size=good.shape)
    figure = roc(truth, {"keras": good, "hls $8$": bad}, labels=["g", "q", "W_$"])
    drawn(figure)
    lines = curves(figure)
    assert len(lines) == 6
    assert [line.get_linestyle() for line in lines] == ["-"] * 3 + ["--"] * 3
    assert [line.get_color() for line in lines[:3]] == [line.get_color() for line in lines[3:]]
    assert figure.axes[0].get_yscale() == "log"
    areas = [[100 * roc_auc_score(truth == k, s[:, k]) for s in (good, bad)] for k in range(3)]
    names = ("g", "q", "W_$")
    assert legend(figure) == [f"{n}: {a:.2f} / {b:.2f}" for n, (a, b) in zip(names, areas, strict=True)]
    signal, background = lines[0].get_data()
    assert np.all(np.diff(signal) >= 0)
    assert 100 * auc(background, signal) == pytest.approx(areas[0][0])


def test_roc_takes_one_hot_and_linear_axes() -> None:
    truth, score = scores(4)
    one, two = roc(np.eye(4)[truth], {"a": score}, log=False), roc(truth[:, None], {"a": score}, log=False)
    assert one.axes[0].get_yscale() == "linear"
    assert legend(one) == legend(two)


def test_roc_of_a_binary_classifier() -> None:
    truth, score = scores(2)
    for given in (score[:, 1], score[:, 1:]):
        figure = roc(truth, {"a": given, "b": -given})
        assert len(curves(figure)) == 2
        (text,) = legend(figure)
        first, second = (float(area) for area in text.removeprefix("1: ").split(" / "))
        assert first + second == pytest.approx(100, abs=0.02)


def test_roc_of_many_classes() -> None:
    truth, score = scores(25)
    figure = roc(truth, {"a": score})
    drawn(figure)
    assert len({str(line.get_color()) for line in curves(figure)}) == 25


def test_roc_without_samples_of_a_class() -> None:
    truth, score = scores(3)
    figure = roc(np.where(truth == 2, 0, truth), {"a": score})
    assert len(curves(figure)) == 2
    assert legend(figure)[2] == "2: none"


@pytest.mark.parametrize(
    ("truth", "predictions", "labels", "message"),
    [
        ([0, 1], {}, None, "empty"),
        ([0, 1, 1], {"a": np.zeros((2, 3))}, None, r"y_true has shape \(3,\), expected \(2,\)"),
        ([0, 3], {"a": np.zeros((2, 3))}, None, "other than 0 to 2"),
        ([0, 1], {"a": np.zeros((2, 3)), "b": np.zeros((2, 2))}, None, r"'b'\] has shape \(2, 2\)"),
        ([0, 1], {"a": np.full((2, 3), np.nan)}, None, "6 of 6 scores are NaN"),
        ([0, 1], {"a": np.zeros((2, 3, 4))}, None, "expected scores"),
        ([0, 1], {"a": np.array([["x"], ["y"]])}, None, "expected scores"),
        ([0, 1], {"a": np.zeros((2, 3))}, ["x"], "1 labels for 3 classes"),
    ],
)
def test_roc_of_bad_input(truth: Any, predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        roc(truth, predictions, labels)


@pytest.mark.parametrize(
    ("module", "package"), [("matplotlib.figure", "matplotlib"), ("sklearn.metrics", "scikit-learn")]
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    truth, score = scores(3)
    with pytest.raises(MissingPackageError, match=f"pip install {package}"):
        roc(truth, {"a": score})
