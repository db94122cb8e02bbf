"""Depthwise convolutions: every channel has filters of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.layers.common import check_layers, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    conv, line = keras.layers.DepthwiseConv2D, keras.layers.DepthwiseConv1D
    image, mono = keras.Input((6, 5, 3), name="image"), keras.Input((5, 4, 1), name="mono")
    wave = keras.Input((8, 3), name="wave")
    outputs = [
        conv(3, name="valid")(image),
        conv(3, padding="same", use_bias=False, name="same")(image),
        conv(2, strides=2, padding="same", depth_multiplier=2, name="two_filters")(image),
        conv((1, 3), depth_multiplier=2, use_bias=False, name="two_filters_no_bias")(image),
        conv(3, strides=(2, 2), activation="relu", name="relu")(image),
        conv(2, depth_multiplier=3, name="one_channel")(mono),
        line(3, name="line_valid")(wave),
        line(2, strides=3, padding="same", depth_multiplier=2, activation="relu", name="line_same")(wave),
    ]
    return randomise(keras.Model([image, mono, wave], outputs))


@some_settings
def test_depthwise(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2e-5)
