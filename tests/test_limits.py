"""Sizes that the vendor tools refuse are told of at conversion, once for each layer."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import kconvert
from kconvert.errors import HardwareWarning
from tests.models import conv2d_net, mlp


def told(model: Any, config: dict[str, Any] | None = None, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kconvert.convert_from_keras_model(model, config, **options)
    return [str(w.message) for w in caught if w.category is HardwareWarning]


@pytest.fixture(scope="module")
def wide() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((20,)),
            layers.Dense(256, activation="relu", name="first"),
            layers.Dense(90, name="second"),
            layers.Dense(4, name="last"),
        ]
    )


@pytest.fixture(scope="module")
def image() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((40, 40, 3), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.Conv2D(64, 3, name="large"),
            layers.GlobalAveragePooling2D(name="pool"),
        ]
    )


@pytest.mark.parametrize("backend", ["Vitis", "Vivado"])
def test_small_models_are_fine(backend: str) -> None:
    assert not told(mlp(), backend=backend)
    assert not told(conv2d_net(), backend=backend)
    assert not told(conv2d_net(), backend=backend, io_type="io_stream")


def test_products_that_are_unrolled(wide: Any) -> None:
    first, second = told(wide)
    assert first.startswith("layer 'first': 5120 products are unrolled at once, more than 4096; set LayerName → first")
    assert "ReuseFactor: 2 or more" in first
    assert "Vitis HLS warns of long run times" in first
    assert second.startswith("layer 'second': 23040 products")
    assert "ReuseFactor: 6 or more" in second
    (same, _) = told(wide, {"Model": {"ReuseFactor": 5}}, backend="Vivado")
    assert same.startswith("layer 'first': 5120 products"), "the loops of Latency are unrolled whatever is shared"
    assert same.endswith("(Vivado HLS refuses it)")


def test_the_advice_is_taken(wide: Any) -> None:
    layers = {"first": {"Strategy": "Resource", "ReuseFactor": 2}, "second": {"Strategy": "Resource", "ReuseFactor": 6}}
    assert not told(wide, {"LayerName": layers})
    (message,) = told(wide, {"LayerName": {**layers, "second": {"Strategy": "Resource", "ReuseFactor": 3}}})
    assert message.startswith("layer 'second': 7680 products")


def test_a_word_of_memory_that_is_too_wide(wide: Any) -> None:
    layers = {
        "first": {"Strategy": "Resource", "ReuseFactor": 2, "Precision": {"weight": "ap_fixed<32,8>"}},
        "second": {"Strategy": "Resource", "ReuseFactor": 6},
    }
    (message,) = told(wide, {"LayerName": layers})
    assert message.startswith("layer 'first': 2560 weights of 32 bits make one word of memory, of more than 65536 bits")
    assert "ReuseFactor: 4 or more" in message
    layers["first"]["ReuseFactor"] = 4
    assert not told(wide, {"LayerName": layers})


def test_positions_side_by_side_and_large_tensors(image: Any) -> None:
    large, tensors = told(image)
    assert large.startswith("layer 'large': 4608 products")
    assert tensors.startswith("the outputs of 'image', 'conv', 'conv_relu', 'large' have up to 82944 elements")
    assert "use io_type='io_stream'" in tensors
    shared = {"large": {"Strategy": "Resource", "ReuseFactor": 2}}
    assert not told(image, {"LayerName": shared}, io_type="io_stream")
    (conv, _) = told(image, {"LayerName": {**shared, "conv": {"ParallelizationFactor": 38}}})
    assert conv.startswith("layer 'conv': 8208 products")


def test_recurrent_layers_and_wide_inputs() -> None:
    import keras

    x = keras.Input((16, 80), name="steps")
    model = keras.Model(x, keras.layers.LSTM(16, name="lstm")(x))
    (message,) = told(model)
    assert message.startswith("layer 'lstm': 5120 products")
    assert "ReuseFactor: 2 or more" in message
    x = keras.Input((4000,), name="many")
    (message,) = told(keras.Model(x, keras.layers.Dense(1, name="one")(x)), {"Model": {"Precision": "ap_fixed<24,8>"}})
    assert message.startswith("input 'many' comes as one word of 96000 bits, and more than 65536 are too many")
