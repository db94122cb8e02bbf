"""Pooling: largest values and means, under windows and over the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType
from kconvert.errors import ConfigError
from tests.layers.common import assert_exact, check_layers, convert, every_setting, typed_config


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    image, wave = keras.Input((7, 6, 3), name="image"), keras.Input((10, 2), name="wave")
    column = keras.Input((4, 1, 1), name="column")
    outputs = []
    for kind, two, one in (
        ("max", layers.MaxPooling2D, layers.MaxPooling1D),
        ("mean", layers.AveragePooling2D, layers.AveragePooling1D),
    ):
        outputs += [
            two(2, name=f"{kind}_plain")(image),
            two(3, strides=2, name=f"{kind}_overlapping")(image),
            two(3, strides=2, padding="same", name=f"{kind}_same")(image),
            two((3, 2), strides=1, padding="same", name=f"{kind}_same_oblong")(image),
            two(1, strides=2, name=f"{kind}_of_one")(image),
            two((2, 1), strides=(3, 2), name=f"{kind}_gaps")(image),
            one(3, name=f"{kind}_1d")(wave),
            one(4, strides=3, padding="same", name=f"{kind}_1d_same")(wave),
            one(1, strides=3, name=f"{kind}_1d_of_one")(wave),
        ]
    outputs += [
        layers.GlobalMaxPooling2D(name="global_largest")(image),
        layers.GlobalMaxPooling2D(keepdims=True, name="global_largest_kept")(image),
        layers.GlobalAveragePooling2D(name="global_mean")(image),
        layers.GlobalAveragePooling2D(keepdims=True, name="global_mean_kept")(image),
        layers.GlobalMaxPooling1D(name="global_largest_1d")(wave),
        layers.GlobalAveragePooling1D(name="global_mean_1d")(wave),
        layers.GlobalAveragePooling1D(keepdims=True, name="global_mean_1d_kept")(wave),
        layers.GlobalAveragePooling2D(name="power_of_two")(column),
    ]
    return keras.Model([image, wave, column], outputs)


# A mean that leaves the model keeps log2(area) more bits than its input and rounds to them: half of 2**-10 at most.
@every_setting
def test_every_window(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-11)


def test_average_over_a_large_image_does_not_wrap() -> None:
    """256 values near the top of their type: a sum in the type of the values would wrap many times."""
    import keras

    x = keras.Input((16, 16, 2), name="image")
    hls_model = convert(keras.Model(x, keras.layers.GlobalAveragePooling2D(name="mean")(x)))
    kind = hls_model["image"].output.known_type()
    extremes = np.empty((3, 16, 16, 2))
    extremes[0], extremes[1], extremes[2] = kind.max, kind.min, np.resize([kind.max, kind.min], (16, 16, 2))
    answers = assert_exact(hls_model, [extremes])[0]
    assert np.array_equal(answers[:2], [[kind.max] * 2, [kind.min] * 2])
    assert hls_model["mean"].accum_type.width == kind.width + 8


@pytest.mark.parametrize("accum", ["ap_fixed<12,5,AP_RND,AP_SAT>", "ap_fixed<9,6,AP_TRN,AP_WRAP>", "ap_fixed<40,12>"])
def test_a_mean_is_rounded_down_once_and_then_stored(accum: str) -> None:
    """Every quotient of small sums, negative ones too, against integer division."""
    import keras

    x = keras.Input((3, 1), name="wave")
    average = keras.Model(x, keras.layers.AveragePooling1D(3, name="mean")(x))
    config = typed_config(average, "default")
    config["LayerName"]["wave"]["Precision"]["result"] = "ap_fixed<8,4>"
    config["LayerName"]["mean"]["Precision"] = {"accum": accum, "result": "ap_fixed<10,4,AP_TRN,AP_WRAP>"}
    hls_model = convert(average, config)
    kind = FixedType.parse("ap_fixed<8,4>")
    raw = np.stack(np.meshgrid(*[np.arange(kind.raw_min, kind.raw_max + 1, 5)] * 3, indexing="ij"), axis=-1)
    assert_exact(hls_model, [kind.from_raw(raw).reshape(-1, 3, 1)])


def test_a_mean_of_too_many_bits_says_what_to_set() -> None:
    import keras

    x = keras.Input((6, 1), name="wave")
    average = keras.Model(x, keras.layers.AveragePooling1D(3, name="mean")(x))
    config = typed_config(average, "default")
    config["LayerName"]["mean"]["Precision"] = {"accum": "ap_fixed<62,20>", "result": "ap_fixed<40,20>"}
    with pytest.raises(ConfigError, match=r"'mean': the mean of 3 elements needs 62 bits.*61 are the most"):
        kconvert.convert_from_keras_model(average, config)
    config["LayerName"]["mean"]["Precision"]["accum"] = "ap_fixed<61,20>"
    hls_model = convert(average, config)
    ends = hls_model.inputs[0].known_type()
    assert_exact(hls_model, [np.array([ends.min, ends.step, ends.max, -ends.step, 0, -ends.step]).reshape(1, 6, 1)])
