"""Convolutions in one and two dimensions: windows, strides, paddings, channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kconvert.errors import ConfigError
from tests.layers.common import assert_exact, check_layers, convert, every_setting, inputs_of, typed_config
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    conv, line = keras.layers.Conv2D, keras.layers.Conv1D
    image, mono = keras.Input((7, 6, 3), name="image"), keras.Input((5, 5, 1), name="mono")
    wave, mono_wave = keras.Input((9, 2), name="wave"), keras.Input((8, 1), name="mono_wave")
    outputs = [
        conv(4, 3, name="valid")(image),
        conv(2, 3, padding="same", name="same")(image),
        conv(2, 3, strides=2, padding="same", use_bias=False, name="same_by_two")(image),
        conv(3, (2, 3), strides=(1, 2), name="oblong")(image),
        conv(2, (4, 1), padding="same", name="even_window")(image),
        conv(2, 1, name="pointwise")(image),
        conv(2, 2, strides=3, name="gaps")(image),
        conv(1, 2, strides=3, padding="same", name="same_with_gaps")(image),
        conv(1, (7, 6), name="whole_image")(image),
        conv(2, 3, activation="relu", name="relu")(mono),
        conv(1, 5, padding="same", use_bias=False, name="window_as_large_as_the_image")(mono),
        line(3, 3, name="line_valid")(wave),
        line(2, 4, padding="same", name="line_same")(wave),
        line(2, 3, strides=2, padding="same", use_bias=False, name="line_same_by_two")(wave),
        line(2, 1, name="line_pointwise")(wave),
        line(2, 2, strides=4, name="line_gaps")(wave),
        line(1, 9, name="whole_line")(wave),
        line(4, 3, activation="relu", name="line_relu")(mono_wave),
    ]
    return randomise(keras.Model([image, mono, wave, mono_wave], outputs))


@every_setting
def test_every_window(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=5e-5)


def test_resource_strategy_sums_to_the_same_bits() -> None:
    import keras

    x = keras.Input((5, 5, 2))
    conv = randomise(keras.Model(x, keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)))
    shared = convert(conv, typed_config(conv, "accum-saturates", Strategy="Resource", ReuseFactor=9))
    parallel = convert(conv, typed_config(conv, "accum-saturates"))
    x = inputs_of(shared)
    assert np.array_equal(assert_exact(shared, x)[0], assert_exact(parallel, x)[0])


@pytest.fixture(scope="module")
def gaps_and_groups() -> Any:
    import keras

    layers = keras.layers
    image, wave = keras.Input((6, 5, 4), name="image"), keras.Input((9, 4), name="wave")
    outputs = [
        layers.Conv2D(2, 3, dilation_rate=2, padding="same", name="dilated")(image),
        layers.Conv2D(2, (2, 3), dilation_rate=(3, 1), name="dilated_rows")(image),
        layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2, name="depthwise")(image),
        layers.SeparableConv2D(3, 2, dilation_rate=2, name="separable")(image),
        layers.Conv1D(3, 3, padding="causal", name="causal")(wave),
        layers.Conv1D(3, 3, dilation_rate=2, padding="causal", name="causal_dilated")(wave),
        layers.Conv1D(2, 2, strides=2, padding="causal", name="causal_strides")(wave),
        layers.Conv2D(6, 3, groups=2, padding="same", activation="relu", name="two_groups")(image),
        layers.Conv2D(4, 2, groups=4, strides=2, use_bias=False, name="a_group_per_channel")(image),
        layers.Conv2D(4, 2, groups=2, dilation_rate=2, name="dilated_groups")(image),
        layers.BatchNormalization(name="norm")(layers.Conv1D(4, 3, groups=2, name="groups_of_wave")(wave)),
    ]
    return randomise(keras.Model([image, wave], outputs))


@pytest.mark.parametrize("setting", ["default", "narrow-wrap", "accum-saturates", "32-bit"])
def test_dilation_causal_padding_and_groups(gaps_and_groups: Any, setting: str) -> None:
    check_layers(gaps_and_groups, setting, tolerance=2e-2)  # 12 folded weights, each rounded to 2**-10


def test_a_shared_group_sums_to_the_same_bits() -> None:
    import keras

    x = keras.Input((5, 4))
    conv = randomise(keras.Model(x, keras.layers.Conv1D(4, 3, groups=2, name="conv")(x)))
    shared = convert(conv, typed_config(conv, "accum-saturates", Strategy="Resource", ReuseFactor=6))
    parallel = convert(conv, typed_config(conv, "accum-saturates"))
    given = inputs_of(shared)
    assert np.array_equal(assert_exact(shared, given)[0], assert_exact(parallel, given)[0])
    with pytest.raises(ConfigError, match=r"ReuseFactor 24 does not divide its 12 products"):
        convert(conv, typed_config(conv, "default", Strategy="Resource", ReuseFactor=24))
