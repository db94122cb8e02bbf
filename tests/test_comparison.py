"""One table for Keras, csim, tflite and kmodel."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import kpu
from kconvert.errors import InputError, ModelError
from tests.conftest import ROOT
from tests.kpu_compiler.networks import chain, converted

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """A small classifier in all its forms."""
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(3)
    model = chain(
        (8, 8, 1), L.Conv2D(4, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(3, activation="softmax")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    X = (pixels / 255).astype(np.float32)
    source = converted(model)
    hls = kconvert.convert_from_keras_model(model)
    hls.compile()
    return {
        "model": model,
        "X": X,
        "hls": hls,
        "tflite": source,
        "kmodel": kpu.compile(source, pixels, layout="nhwc"),
        "y": model.predict(X, verbose=0).argmax(1),
    }


def test_all_in_one_table(everything: dict[str, Any]) -> None:
    found = kconvert.compare(**everything)
    assert [o.name for o in found] == ["Keras", "csim", "tflite", "kmodel"]
    assert found["Keras"].max_difference == 0
    assert found["Keras"].accuracy == 1
    assert found["tflite"].max_difference < 1e-6
    for name in ("csim", "kmodel"):
        assert 1e-6 < found[name].mean_difference < 0.02
        assert found[name].argmax_agreement > 0.9
        assert found[name].accuracy == found[name].argmax_agreement
        expected = np.abs(found.outputs[name][0] - found.outputs["Keras"][0])
        assert found[name].max_difference == expected.max()
    lines = str(found).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[0] == "implementation"
    assert found.table()[3]["implementation"] == "kmodel"


def test_the_figure_has_a_panel_for_each(everything: dict[str, Any], tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = kconvert.compare(**everything).plot()
    assert [axes.get_title().split(":")[0] for axes in figure.axes] == ["csim", "tflite", "kmodel"]
    figure.savefig(tmp_path / "a.png")


def test_labels_may_be_one_hot_or_left_out(everything: dict[str, Any]) -> None:
    only = {k: everything[k] for k in ("model", "X", "tflite")}
    one_hot = np.eye(3)[everything["y"]]
    assert kconvert.compare(**only, y=one_hot)["tflite"].accuracy == 1
    assert kconvert.compare(**only)["tflite"].accuracy is None


def test_outputs_are_matched_whatever_their_order() -> None:
    """A kmodel's outputs are those of the tflite file, whose order the converter chooses."""
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(0)
    first = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(first)
    outputs = [L.Conv2D(4, 1, name="zz")(x), L.Conv2D(4, 3, padding="same", name="aa")(x), L.MaxPool2D()(x)]
    model = keras.Model(first, outputs)
    source = converted(model)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    kmodel = kpu.compile(source, pixels, layout="nhwc")
    found = kconvert.compare(model, (pixels / 255).astype(np.float32), tflite=source, kmodel=kmodel)
    assert found["tflite"].max_difference < 1e-5
    assert found["kmodel"].mean_difference < 0.01
    assert found["kmodel"].argmax_agreement is None


def test_inputs_are_fed_in_the_order_of_keras() -> None:
    """TensorFlow's converter reorders both inputs and outputs."""
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(0)
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(a)
    model = keras.Model([a, b], [L.Add()([x, L.Conv2D(4, 3, padding="same")(b)]), L.MaxPool2D()(x)])
    rng = np.random.default_rng(0)
    pixels, reals = rng.integers(0, 256, (8, 8, 8, 3), np.uint8), rng.random((8, 8, 8, 3), np.float32)
    kmodel = kpu.compile(model, [pixels, reals], layout="nhwc")
    X = [(pixels / 255).astype(np.float32), reals]
    found = kconvert.compare(model, X, tflite=converted(model), kmodel=kmodel)
    assert found["tflite"].max_difference < 1e-5
    assert found["kmodel"].mean_difference < 0.01
    for mine, keras_output in zip(
        kmodel.infer([pixels, reals], layout="nhwc"), model.predict(X, verbose=0), strict=True
    ):
        assert np.abs(mine - keras_output).mean() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tflite": None, "kmodel": None, "hls": None}, "nothing to compare with"),
        ({"y": np.zeros(5)}, "60 labels"),
        ({"X": np.zeros((0, 8, 8, 1), np.float32)}, "no samples"),
        ({"X": np.full((2, 8, 8, 1), 3.0, np.float32), "hls": None, "y": None}, "takes pixels"),
    ],
)
def test_what_does_not_fit(everything: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kconvert.compare(**{**everything, **change})


def test_a_tflite_that_is_none(everything: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="LiteRT cannot load"):
        kconvert.compare(everything["model"], everything["X"], tflite=b"nothing")


def test_importing_it_is_light() -> None:
    code = (
        "import sys, kconvert; kconvert.compare; sys.exit('tensorflow' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
