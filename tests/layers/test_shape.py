"""Layers that move elements: padding, reshaping, flattening, dropout and linear activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    image, wave = keras.Input((3, 4, 2), name="image"), keras.Input((6, 2), name="wave")
    flat = layers.Flatten(name="flatten")(image)
    outputs = [
        layers.ZeroPadding2D(2, name="all_sides")(image),
        layers.ZeroPadding2D((1, 0), name="rows_only")(image),
        layers.ZeroPadding2D(((0, 2), (3, 1)), name="every_side_its_own")(image),
        layers.ZeroPadding1D(1, name="both_ends")(wave),
        layers.ZeroPadding1D((0, 3), name="end_only")(wave),
        layers.Reshape((4, 6), name="reshape")(image),
        layers.Reshape((2, -1, 3), name="reshape_open")(wave),
        layers.Dense(3, name="dense_after_flatten")(flat),
        layers.Dense(2, name="dense_after_reshape")(layers.Reshape((8, 3), name="reshape_inside")(image)),
        layers.Activation("linear", name="linear")(wave),
        layers.Dropout(0.5, name="dropout")(flat),
    ]
    return randomise(keras.Model([image, wave], outputs))


@some_settings
def test_elements_arrive_where_keras_puts_them(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2e-5)


def test_a_view_of_an_input_or_of_a_layer_may_be_an_output_and_read_as_well() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((4, 2), name="x")
    dense = layers.Dense(3, name="dense")(x)
    flat = layers.Flatten(name="flat")(dense)
    back = layers.Reshape((3, 4), name="back")(flat)
    model = keras.Model(
        x, [layers.Flatten(name="view_of_input")(x), dense, flat, back, layers.Dense(2, name="top")(back)]
    )
    hls_model = convert(randomise(model))
    answers = assert_exact(hls_model, inputs_of(hls_model))
    assert np.array_equal(answers[1].ravel(), answers[2].ravel())
    assert list(hls_model.trace(inputs_of(hls_model)[0])) == ["dense", "flat", "back", "view_of_input", "top"]


def test_a_view_with_a_type_of_its_own_converts() -> None:
    import keras

    x = keras.Input((2, 3), name="x")
    model = keras.Model(x, keras.layers.Flatten(name="flat")(x))
    hls_model = convert(model, {"LayerName": {"flat": {"Precision": {"result": "ap_ufixed<4,2,AP_RND,AP_SAT>"}}}})
    (answers,) = assert_exact(hls_model, inputs_of(hls_model))
    assert answers.min() == 0
    assert answers.max() == 3.75


def test_an_identity_with_a_type_of_its_own_stays() -> None:
    import keras

    x = keras.Input((5,), name="x")
    model = keras.Model(x, keras.layers.Activation("linear", name="round")(x))
    hls_model = convert(model, {"LayerName": {"round": {"Precision": {"result": "ap_fixed<4,4,AP_RND_CONV>"}}}})
    (answers,) = assert_exact(hls_model, inputs_of(hls_model))
    assert np.array_equal(answers, np.rint(answers))


def test_a_reshape_that_does_not_fit_names_the_layer() -> None:
    spec = kconvert.read_model(_reshape_model())
    spec["reshape"].config["target_shape"] = (5, -1)  # type: ignore[index]  # a dict behind a Mapping
    with pytest.raises(ModelError, match=r"'reshape': cannot reshape \(2, 3\) to \(5, -1\)"):
        kconvert.convert_from_keras_model(spec)


def _reshape_model() -> Any:
    import keras

    x = keras.Input((2, 3))
    return keras.Model(x, keras.layers.Reshape((6,), name="reshape")(x))
