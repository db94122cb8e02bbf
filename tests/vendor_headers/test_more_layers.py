"""Activations, normalisation and the like: the written project with the reference headers, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kconvert
from tests.models import randomise
from tests.vendor_headers.test_vendor_headers import check, headers  # noqa: F401  a fixture

pytestmark = pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")


def _model() -> Any:
    import keras

    layers = keras.layers
    image = keras.Input((4, 3, 4), name="image")
    x = keras.Input((6,), name="x")
    names = ("exponential", "softsign", "gelu", "selu", "log_sigmoid", "hard_sigmoid", "tanh", "softmax")
    outputs = [
        *(layers.Activation(name, name=name)(x) for name in names),
        layers.Softmax(axis=1, name="softmax_of_rows")(image),
        layers.PReLU(shared_axes=[1, 2], name="prelu")(image),
        layers.ReLU(threshold=0.5, negative_slope=0.25, max_value=2.0, name="threshold")(image),
        layers.LayerNormalization(name="layer")(image),
        layers.GroupNormalization(2, name="group")(image),
        layers.UnitNormalization(name="unit")(x),
        layers.BatchNormalization(axis=1, name="batch")(image),
        layers.UpSampling2D((2, 3), interpolation="bilinear", name="bilinear")(image),
        layers.Permute((3, 1, 2), name="permute")(image),
        layers.Conv2D(4, 2, groups=2, dilation_rate=2, name="grouped")(image),
        layers.Multiply(name="weighted")([image, layers.Dense(4, name="channel_weights")(x)]),
    ]
    return randomise(keras.Model([image, x], outputs))


@pytest.mark.parametrize("precision", ["ap_fixed<16,6>", "ap_fixed<32,14>"])
def test_the_project_logs_the_bits_of_predict(precision: str, headers: Path, tmp_path: Path) -> None:  # noqa: F811
    model = _model()
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision=precision)
    for entry in config["LayerName"].values():  # compilers take minutes for tables of thousands of the headers' numbers
        entry.update({"table_size": 64} if "table_size" in entry else {})
    check(model, config, headers, tmp_path)
