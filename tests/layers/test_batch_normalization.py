"""Batch normalisation as a layer of its own, where there is nothing to fold it into."""

from __future__ import annotations

from typing import Any

import pytest

from tests.layers.common import check_layers, some_settings
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    norm = keras.layers.BatchNormalization
    vector, wave = keras.Input((6,), name="vector"), keras.Input((4, 3), name="wave")
    image = keras.Input((2, 3, 2), name="image")
    outputs = [
        norm(name="plain")(vector),
        norm(scale=False, name="no_scale")(vector),
        norm(center=False, name="no_centre")(vector),
        norm(scale=False, center=False, epsilon=0.1, name="neither")(vector),
        norm(name="rank_2")(wave),
        norm(name="rank_3")(image),
    ]
    return randomise(keras.Model([vector, wave, image], outputs))


# Scale and bias are rounded to 2**-10: half a step of the scale times an input of at most 4, and half a step.
@some_settings
def test_every_rank_and_option(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=4 * 2**-11 + 2**-11 + 1e-5)
