"""ReLU with a limit, with a slope, with both, as a layer and inside another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.layers.common import assert_exact, check_layers, convert, every_setting
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, image = keras.Input((9,), name="x"), keras.Input((3, 2, 2), name="image")
    outputs = [
        layers.ReLU(name="plain")(x),
        layers.ReLU(max_value=1.5, name="limited")(x),
        layers.ReLU(max_value=6, name="relu6")(image),
        layers.ReLU(negative_slope=0.25, name="slope")(x),
        layers.ReLU(negative_slope=0.3, max_value=1.0, name="slope_and_limit")(x),
        layers.LeakyReLU(negative_slope=0.125, name="leaky")(image),
        layers.LeakyReLU(name="leaky_by_default")(x),
        layers.Activation("relu", name="by_name")(image),
        layers.Activation("leaky_relu", name="leaky_by_name")(x),
        layers.Dense(4, activation=layers.ReLU(max_value=2.0), name="dense")(x),
    ]
    return randomise(keras.Model([x, image], outputs))


# A slope such as 0.3 is rounded to 2**-10 and multiplied with at most 4; a limit of 1.5 is exact.
@every_setting
def test_every_option(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=4 * 2**-11 + 1e-5)


def test_a_limit_between_two_values_is_rounded_to_the_nearest() -> None:
    import keras

    x = keras.Input((1,), name="x")
    model = keras.Model(x, keras.layers.ReLU(max_value=1.3, name="relu")(x))
    precision = {"x": {"Precision": {"result": "ap_fixed<8,4>"}}, "relu": {"Precision": {"result": "ap_ufixed<5,3>"}}}
    hls_model = convert(model, {"LayerName": precision})
    (answers,) = assert_exact(hls_model, [np.arange(-2, 4, 0.0625)[:, None]])
    assert answers.max() == 1.25
