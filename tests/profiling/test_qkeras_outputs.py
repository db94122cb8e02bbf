"""Keras' own values of QKeras models: the same keys as a trace, right values, and a model left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.profiling import get_ymodel_keras
from tests.qkeras import nets

pytest.importorskip("qkeras")


def network(*layers: Any) -> Any:
    import keras

    model = keras.Sequential([keras.Input((4,), name="x"), *layers])
    for layer in model.layers:
        if type(layer).__name__ == "QAdaptiveActivation":
            layer.ema_min.assign(np.full(layer.ema_min.shape, -1.0))
            layer.ema_max.assign(np.full(layer.ema_max.shape, 6.0))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ in ("QDense", "QDenseBatchnorm"):
            layer.set_weights([rng.uniform(0.2, 1, size=w.shape) for w in layer.get_weights()])
    model(np.zeros((1, 4), dtype=np.float32), training=False)  # where adaptive bits are counted
    return model


def state(model: Any) -> list[np.ndarray]:
    """Return all that a model keeps, the bits of adaptive quantizers too."""
    hidden = [
        np.array(q.integer) for layer in model.layers if hasattr(q := getattr(layer, "quantizer", None), "integer")
    ]
    return [*model.get_weights(), *hidden]


def sampled(model: Any) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(12, *model.input_shape[1:])).astype(np.float32)


@pytest.mark.parametrize("architecture", range(0, 15, 3))
@pytest.mark.filterwarnings("ignore")  # of QKeras, about how the networks would train
def test_random_networks(architecture: int) -> None:
    model = nets.build(architecture)
    nets.randomise(model, architecture)
    x, before = sampled(model), state(model)
    hls_model = kconvert.convert_from_keras_model(model)
    found = get_ymodel_keras(model, x)
    assert list(found) == list(hls_model.traced())
    for name, value in hls_model.traced().items():
        assert found[name].shape == (12, *value.shape)
    (output,) = (value.names[-1] for value in hls_model.outputs)
    np.testing.assert_allclose(found[output], model.predict(x, verbose=0), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, state(model), strict=True))


def test_a_layer_that_does_not_fit_its_own_config() -> None:
    """QDenseBatchnorm refuses what it writes into its config; it is computed without its activation all the same."""
    import qkeras

    quantizer = "quantized_bits(8,2,alpha=1)"
    layer = qkeras.QDenseBatchnorm(
        3, kernel_quantizer=quantizer, bias_quantizer=quantizer, activation="quantized_relu(4,1)", name="fc"
    )
    model = network(layer)
    x, activation = sampled(model), layer.activation
    found = get_ymodel_keras(model, x)
    before, after = found.values()
    assert before.min() < 0
    np.testing.assert_allclose(after, model.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose(np.clip(np.round(before * 8) / 8, 0, 1.875), after, atol=1e-6)
    assert layer.activation is activation


def test_bits_that_are_no_weights() -> None:
    import qkeras

    quantizer = "quantized_bits(8,2,alpha=1)"
    model = network(
        qkeras.QDense(3, kernel_quantizer=quantizer, bias_quantizer=quantizer, name="fc"),
        qkeras.QAdaptiveActivation("quantized_relu", 6, current_step=9, ema_freeze_delay=2, name="adaptive"),
    )
    x, before = sampled(model) + 2, state(model)
    found = get_ymodel_keras(model, x)
    np.testing.assert_allclose(found["adaptive"], model.predict(x, verbose=0), atol=1e-6)
    assert found["adaptive"].max() > 2
    assert all(np.array_equal(a, b) for a, b in zip(before, state(model), strict=True))
