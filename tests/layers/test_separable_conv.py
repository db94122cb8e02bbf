"""Separable convolutions: a depthwise one and a pointwise one behind it, each with types of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError
from kconvert.layers import Conv, DepthwiseConv
from kconvert.profiling import get_ymodel_keras
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    conv, line = keras.layers.SeparableConv2D, keras.layers.SeparableConv1D
    image, wave = keras.Input((6, 5, 3), name="image"), keras.Input((9, 2), name="wave")
    outputs = [
        conv(4, 3, name="valid")(image),
        conv(2, 3, strides=2, padding="same", use_bias=False, name="same_by_two")(image),
        conv(3, (1, 2), depth_multiplier=2, name="two_filters")(image),
        conv(2, 2, activation="relu", name="relu")(image),
        line(3, 3, name="line_valid")(wave),
        line(2, 4, strides=3, padding="same", depth_multiplier=3, name="line_same")(wave),
        line(1, 9, use_bias=False, activation="relu", name="whole_line")(wave),
    ]
    return randomise(keras.Model([image, wave], outputs))


# The tensor between the two convolutions is rounded to 2**-10, and up to 6 of its values weigh up to 0.5 each.
@some_settings
def test_separable(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=6 * 0.5 * 2**-11 + 2e-5)


def chained() -> Any:
    import keras

    layers = keras.layers
    x = keras.Input((5, 5, 2), name="x")
    shared = layers.SeparableConv2D(2, 2, padding="same", name="shared")
    y = layers.SeparableConv2D(3, 2, activation="relu", name="last")(shared(shared(x)))
    return randomise(keras.Model(x, layers.BatchNormalization(name="norm")(y)))


def test_both_convolutions_have_settings_that_take_effect() -> None:
    model = chained()
    config = kconvert.config_from_keras_model(model, granularity="name")
    both = ["shared_depthwise", "shared", "last_depthwise", "last"]
    assert list(config["LayerName"]) == ["x", *both, "last_relu", "norm"]
    assert config["LayerName"]["last_depthwise"]["Precision"]["result"] == config["Model"]["Precision"]["default"]
    config["LayerName"]["shared_depthwise"]["Precision"] = {"weight": "ap_fixed<5,1>", "result": "auto"}
    config["LayerName"]["last_depthwise"]["Precision"]["result"] = "ap_fixed<9,4>"
    config["LayerName"]["last"]["ReuseFactor"] = 6
    hls_model = convert(model, config)
    assert isinstance(hls_model["last_depthwise"], DepthwiseConv)
    assert isinstance(hls_model["last"], Conv)
    for call in ("shared_depthwise", "shared_depthwise:1"):
        assert str(hls_model[call].weight_type) == "ap_fixed<5,1>"
        assert hls_model[call].result_type == hls_model[call].accum_type
    assert str(hls_model["last_depthwise"].result_type) == "ap_fixed<9,4>"
    assert (hls_model["last_depthwise"].reuse_factor, hls_model["last"].reuse_factor) == (1, 6)
    assert_exact(hls_model, inputs_of(hls_model))


def test_a_type_of_layers_holds_for_both() -> None:
    hls_model = convert(chained(), {"LayerType": {"SeparableConv2D": {"Precision": {"weight": "ap_fixed<7,1>"}}}})
    kinds = {name: str(hls_model[name].weight_type) for name in ("shared_depthwise", "shared:1", "last")}
    assert set(kinds.values()) == {"ap_fixed<7,1>"}


def test_only_what_keras_computes_is_a_key() -> None:
    model = chained()
    hls_model = convert(model)
    x = np.random.default_rng(0).normal(size=(5, 5, 5, 2))
    trace, keras = hls_model.trace(x), get_ymodel_keras(model, x)
    assert list(trace) == list(keras) == ["shared", "shared:1", "last", "last_relu", "norm"]
    for name, array in keras.items():
        np.testing.assert_allclose(trace[name], array, atol=0.02, err_msg=name)


def test_a_normalisation_behind_folds_into_the_pointwise_convolution() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((7, 2), name="x")
    conv = layers.SeparableConv1D(3, 3, use_bias=False, name="conv")(x)
    model = randomise(keras.Model(x, layers.BatchNormalization(name="norm")(conv)))
    hls_model = convert(model)
    assert [n.name for n in hls_model.nodes] == ["x", "conv_depthwise", "conv"]
    given = inputs_of(hls_model)
    assert list(hls_model.trace(given[0])) == ["norm"]
    assert_exact(hls_model, given)


def test_files_hold_the_weights_in_the_same_order(model: Any, tmp_path: Path) -> None:
    live = kconvert.read_model(model)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        stored = kconvert.read_model(tmp_path / name)
        for layer in live.layers:
            for one, other in zip(layer.weights, stored[layer.name].weights, strict=True):
                assert np.array_equal(one, other), layer.name


def test_a_kernel_that_does_not_fit_is_named(model: Any) -> None:
    spec = kconvert.read_model(model)
    spec["valid"].config["filters"] = 5  # type: ignore[index]  # a dict behind a Mapping
    message = r"'valid'.*pointwise kernel has shape \(1, 1, 3, 4\), expected \(1, 1, 3, 5\)"
    with pytest.raises(ModelError, match=message):
        kconvert.convert_from_keras_model(spec)
