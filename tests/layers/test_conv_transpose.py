"""Transposed convolutions: every stride, padding and window against Keras, which computes them as gradients."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.profiling import get_ymodel_keras
from tests import reference
from tests.layers.common import as_list, assert_exact, check_layers, convert, inputs_of, keras_answers, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    conv, line = keras.layers.Conv2DTranspose, keras.layers.Conv1DTranspose
    image, wave = keras.Input((4, 3, 2), name="image"), keras.Input((5, 2), name="wave")
    outputs = [
        conv(3, 3, name="valid")(image),
        conv(2, 3, strides=2, name="valid_by_two")(image),
        conv(2, 3, strides=2, padding="same", use_bias=False, name="same_by_two")(image),
        conv(2, (2, 3), strides=(3, 1), padding="same", name="oblong")(image),
        conv(1, 2, strides=3, name="gaps")(image),
        conv(1, 1, strides=2, padding="same", name="pixels_apart")(image),
        conv(2, 4, strides=2, padding="same", output_padding=1, name="one_more")(image),
        conv(2, 2, strides=2, activation="relu", name="relu")(image),
        line(3, 3, name="line_valid")(wave),
        line(2, 4, strides=3, padding="same", name="line_same")(wave),
        line(1, 2, strides=4, use_bias=False, name="line_gaps")(wave),
        line(2, 3, strides=2, output_padding=1, name="line_one_more")(wave),
    ]
    return randomise(keras.Model([image, wave], outputs))


@some_settings
def test_transposed(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2e-5)


def test_every_geometry_is_keras_own() -> None:
    """In floats, over all small sizes; layers that Keras itself cannot compute are left out."""
    import keras

    x = keras.Input((4, 1), name="x")
    outputs = []
    for size, stride, padding in itertools.product(range(1, 7), range(1, 5), ("valid", "same")):
        for extra in (None, *range(stride)):
            # Keras asks TensorFlow for the gradient of a convolution over an image that would have made another size
            if padding == "same" and extra == 0 and size % 2 == 0:
                continue
            options = {"strides": stride, "padding": padding, "output_padding": extra}
            outputs.append(keras.layers.Conv1DTranspose(1, size, **options, name=f"c{len(outputs)}")(x))
    model = randomise(keras.Model(x, outputs))
    hls_model = kconvert.convert_from_keras_model(model)
    given = [np.random.default_rng(0).normal(size=(2, 4, 1))]
    theirs = as_list(keras_answers(model, given))
    for value, ours, answer in zip(hls_model.outputs, reference.run_float(hls_model, given[0]), theirs, strict=True):
        node = value.producer
        assert ours.shape == answer.shape, node
        np.testing.assert_allclose(ours, answer, atol=1e-5, err_msg=str(node))


def test_the_zeros_cost_no_bits_and_are_no_key() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((3, 3, 2), name="x")
    y = layers.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu", name="up")(x)
    model = randomise(keras.Model(x, layers.Conv2DTranspose(2, 2, name="dense")(y)))
    config = kconvert.config_from_keras_model(model, granularity="name")
    assert list(config["LayerName"]) == ["x", "up_spread", "up", "up_relu", "dense"]
    assert config["LayerName"]["up_spread"] == {"Precision": {"result": "auto"}}
    config["LayerName"]["x"]["Precision"]["result"] = "ap_fixed<20,7>"
    hls_model = convert(model, config)
    assert hls_model["up_spread"].result_type == hls_model["x"].result_type
    given = inputs_of(hls_model)
    assert_exact(hls_model, given)
    assert list(hls_model.trace(given[0])) == list(get_ymodel_keras(model, given[0])) == ["up", "up_relu", "dense"]


def test_files_hold_the_same_layer(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    x = [np.random.default_rng(0).normal(size=(2, *shape)) for shape in ((4, 3, 2), (5, 2))]
    live = reference.run_float(kconvert.convert_from_keras_model(model), x)
    stored = reference.run_float(kconvert.convert_from_keras_model(tmp_path / "model.keras"), x)
    assert all(np.array_equal(one, other) for one, other in zip(live, stored, strict=True))


def test_dilation_is_refused() -> None:
    import keras

    x = keras.Input((7, 7, 2))
    model = keras.Model(x, keras.layers.Conv2DTranspose(2, 2, dilation_rate=2, name="up")(x))
    with pytest.raises(UnsupportedLayerError, match=r"'up' \(Conv2DTranspose\): dilation_rate=.*only \[1, 1\]"):
        kconvert.convert_from_keras_model(model)


def test_a_kernel_that_does_not_fit_is_named(model: Any) -> None:
    spec = kconvert.read_model(model)
    spec["valid"].config["filters"] = 5  # type: ignore[index]  # a dict behind a Mapping
    with pytest.raises(ModelError, match=r"'valid'.*kernel has shape \(3, 3, 3, 2\), expected \(3, 3, 5, 2\)"):
        kconvert.convert_from_keras_model(spec)
