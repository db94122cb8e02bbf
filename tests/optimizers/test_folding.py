"""Batch normalisation folded into the layer before it, and the cases in which it must not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.optimizers import apply_settings, fold_batch_normalization, split_activations
from kconvert.optimizers.verify import verify
from tests.layers.common import assert_exact, convert, inputs_of
from tests.models import randomise
from tests.optimizers.common import graph_of, operations, run_and_compare

FOLD = [split_activations, apply_settings, fold_batch_normalization]


def _layers() -> Any:
    import keras

    return keras.layers


LAYERS: dict[str, tuple[tuple[int, ...], Callable[[bool], Any]]] = {
    "dense": ((5,), lambda bias: _layers().Dense(4, use_bias=bias, name="layer")),
    "dense of rank 3": ((2, 3, 5), lambda bias: _layers().Dense(4, use_bias=bias, name="layer")),
    "conv1d": ((7, 2), lambda bias: _layers().Conv1D(3, 3, use_bias=bias, padding="same", name="layer")),
    "conv2d": ((5, 5, 2), lambda bias: _layers().Conv2D(3, 3, use_bias=bias, name="layer")),
    "depthwise": (
        (5, 5, 2),
        lambda bias: _layers().DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias, name="layer"),
    ),
}


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=["all", "no scale", "no centre"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", LAYERS)
def test_folded_into(kind: str, bias: bool, options: dict[str, bool]) -> None:
    import keras

    shape, make = LAYERS[kind]
    x = keras.Input(shape, name="x")
    y = keras.layers.BatchNormalization(name="norm", **options)(make(bias)(x))
    hls_model = graph_of(randomise(keras.Model(x, keras.layers.ReLU(name="relu")(y))))
    run_and_compare(hls_model, FOLD)
    verify(hls_model)
    assert list(operations(hls_model)) == ["layer", "relu"]
    assert hls_model["layer"].output.names == ["norm"]


def test_two_normalisations_in_a_row_fold_both() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((3,), name="x")
    y = layers.BatchNormalization(name="second")(layers.BatchNormalization(name="first")(layers.Dense(3, name="fc")(x)))
    hls_model = graph_of(randomise(keras.Model(x, y)))
    run_and_compare(hls_model, FOLD)
    assert list(operations(hls_model)) == ["fc"]
    assert hls_model["fc"].output.names == ["second"]


def test_a_layer_called_twice_folds_the_normalisation_of_one_call_only_there() -> None:
    import keras

    layers = keras.layers
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = layers.Dense(3, name="shared")
    outputs = [layers.BatchNormalization(name="norm")(shared(a)), shared(b)]
    hls_model = graph_of(randomise(keras.Model([a, b], outputs)))
    run_and_compare(hls_model, FOLD)
    assert "norm" not in operations(hls_model)


def _not_folded(outputs: str) -> Any:
    import keras

    layers = keras.layers
    x = keras.Input((3,), name="x")
    fc = layers.Dense(3, name="fc", activation="relu" if outputs == "activation between" else None)(x)
    norm = layers.BatchNormalization(name="norm")(fc)
    others = {
        "two readers": [layers.Add(name="sum")([fc, norm])],
        "output in between": [norm, fc],
        "activation between": [norm],
        "after an input": [layers.BatchNormalization(name="of_input")(x), norm],
    }
    return randomise(keras.Model(x, others[outputs]))


@pytest.mark.parametrize(
    ("why", "left"),
    [
        ("two readers", ["norm"]),
        ("output in between", ["norm"]),
        ("activation between", ["norm"]),
        ("after an input", ["of_input"]),
    ],
)
def test_not_folded_because_of(why: str, left: list[str]) -> None:
    hls_model = graph_of(_not_folded(why))
    run_and_compare(hls_model, FOLD)
    verify(hls_model)
    assert [n for n, kind in operations(hls_model).items() if kind == "BatchNormalization"] == left


@pytest.mark.parametrize(
    ("layer", "role"),
    [("fc", "result"), ("norm", "scale"), ("norm", "bias")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_not_folded_when_the_user_gave_a_type_it_would_lose(layer: str, role: str) -> None:
    import keras

    x = keras.Input((3,), name="x")
    model = randomise(keras.Model(x, keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(3, name="fc")(x))))
    hls_model = graph_of(model, {"LayerName": {layer: {"Precision": {role: "ap_fixed<12,4>"}}}})
    run_and_compare(hls_model, FOLD)
    assert list(operations(hls_model)) == ["fc", "norm"]


def test_the_result_type_of_the_normalisation_is_that_of_the_folded_layer() -> None:
    import keras

    x = keras.Input((3,), name="x")
    model = randomise(keras.Model(x, keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(3, name="fc")(x))))
    hls_model = convert(model, {"LayerName": {"norm": {"Precision": {"result": "ap_fixed<7,3,AP_RND,AP_SAT>"}}}})
    assert str(hls_model["fc"].output.type) == "ap_fixed<7,3,AP_RND,AP_SAT>"
    (x,) = inputs_of(hls_model)
    assert list(hls_model.trace(x)) == ["norm"]
    (answers,) = assert_exact(hls_model, [x])
    assert np.array_equal(answers, hls_model.trace(x)["norm"])


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_folded_bias_keeps_its_precision(use_bias: bool) -> None:
    import keras

    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(3, use_bias=use_bias, name="fc")(x)
    model = randomise(keras.Model(x, keras.layers.BatchNormalization(name="bn")(y)))
    hls_model = convert(model, kconvert.config_from_keras_model(model, granularity="name"))
    samples = np.random.default_rng(0).normal(size=(50, 4))
    (answers,) = assert_exact(hls_model, [samples])
    np.testing.assert_allclose(answers, model.predict(samples, verbose=0), atol=0.02)
