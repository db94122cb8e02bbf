"""Layers that move elements, and up-sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError
from tests.layers.common import assert_exact, check_layers, convert, inputs_of
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    image, wave, vector = keras.Input((3, 4, 2), name="image"), keras.Input((6, 2), name="wave"), keras.Input((5,))
    outputs = [
        layers.Cropping1D((1, 2), name="ends")(wave),
        layers.Cropping1D(2, name="both_ends")(wave),
        layers.Cropping2D(1, name="all_sides")(image),
        layers.Cropping2D(((0, 2), (3, 0)), name="every_side_its_own")(image),
        layers.UpSampling1D(3, name="line")(wave),
        layers.UpSampling2D((2, 3), name="nearest")(image),
        layers.UpSampling2D((2, 4), interpolation="bilinear", name="bilinear")(image),
        layers.UpSampling2D((3, 1), interpolation="bilinear", name="bilinear_by_three")(image),
        layers.Permute((3, 1, 2), name="turned")(image),
        layers.Permute((2, 1), name="transposed")(wave),
        layers.RepeatVector(3, name="repeated")(vector),
        layers.Reshape((2, 3, 2, 2), name="four_axes")(image),
        layers.Permute((4, 2, 1, 3), name="four_axes_turned")(layers.Reshape((2, 3, 2, 2))(image)),
        layers.Dense(2, name="dense")(layers.Flatten()(layers.Permute((2, 3, 1))(image))),
    ]
    return randomise(keras.Model([image, wave, vector], outputs))


@pytest.mark.parametrize("setting", ["default", "narrow-wrap", "unsigned", "wide"])
def test_elements_arrive_where_keras_puts_them(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2**-13)  # a mean of twelfths is rounded down, with bits to spare


def test_up_sampling_by_a_power_of_two_is_exact() -> None:
    import keras

    x = keras.Input((5, 3, 1), name="x")
    model = keras.Model(x, keras.layers.UpSampling2D(2, interpolation="bilinear", name="up")(x))
    hls_model = convert(model)
    (x,) = inputs_of(hls_model)
    (ours,) = assert_exact(hls_model, [x])
    sharp = hls_model.inputs[0].known_type().quantize(x)
    theirs = model.predict(sharp.astype(np.float32), verbose=0)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("cut", {"cropping": (3, 3)}, r"'cut': cropping=\(3, 3\) leaves nothing of \(6, 2\)"),
        ("turn", {"dims": (1, 1)}, r"'turn': dims=\(1, 1\) is no order of the axes of \(6, 2\)"),
        ("up", {"size": 0}, r"'up': size=0 is not positive"),
    ],
)
def test_what_makes_no_sense_names_the_layer(name: str, config: dict[str, Any], message: str) -> None:
    import keras

    layers, x = keras.layers, keras.Input((6, 2))
    outputs = [
        layers.Cropping1D(1, name="cut")(x),
        layers.Permute((2, 1), name="turn")(x),
        layers.UpSampling1D(name="up")(x),
    ]
    spec = kconvert.read_model(keras.Model(x, outputs))
    spec[name].config.update(config)  # type: ignore[attr-defined]  # a dict behind a Mapping
    with pytest.raises(ModelError, match=message):
        kconvert.convert_from_keras_model(spec)
