"""Trained models of other people answer as the model they were made from."""

from __future__ import annotations

import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import LayerSpec, ModelSpec
from tests import reference
from tests.conftest import golden


def _inputs(hls_model: kconvert.HLSModel, count: int = 500) -> np.ndarray:
    random = np.random.default_rng(3)
    x = random.normal(size=(count, *hls_model.inputs[0].shape)).astype(np.float32)
    return hls_model.inputs[0].known_type().quantize(x)


def _convert(name: str, weights: str | None = None) -> tuple[ModelSpec, kconvert.HLSModel]:
    folder = golden("example-models") / "keras"
    spec = kconvert.read_model(folder / name, None if weights is None else folder / weights)
    hls_model = kconvert.convert_from_keras_model(spec, kconvert.config_from_keras_model(spec, granularity="name"))
    hls_model.compile()
    return spec, hls_model


def test_the_keras_3_model_before_its_softmax() -> None:
    keras, qkeras = pytest.importorskip("keras"), pytest.importorskip("qkeras")
    _, hls_model = _convert("qkeras-v3_3layer.keras")
    model = keras.models.load_model(golden("example-models") / "keras" / "qkeras-v3_3layer.keras", compile=False)
    x = _inputs(hls_model)
    trace, wanted = hls_model.trace(x), kconvert.profiling.get_ymodel_keras(model, x.astype(np.float32))
    assert qkeras.__name__ in {type(layer).__module__.partition(".")[0] for layer in model.layers}
    assert list(trace) == list(wanted)
    for name in wanted:
        if name != "softmax":
            assert np.array_equal(trace[name], wanted[name]), name


def test_the_keras_2_model_from_json_and_h5() -> None:
    spec, hls_model = _convert("qkeras_3layer.json", "qkeras_3layer_weights.h5")
    x = _inputs(hls_model)
    trace = hls_model.trace(x)
    for layer in spec.layers:
        if layer.class_name == "QDense":
            kernel, bias = (np.clip(np.round(w.astype(np.float64) * 32), -32, 31) / 32 for w in layer.weights)
            x = x @ kernel + bias
        elif layer.class_name == "QActivation":
            x = np.clip(np.round(x * 64), 0, 63) / 64
        else:
            continue
        assert np.array_equal(trace[layer.name], x), layer.name


@pytest.mark.parametrize("kind", ["ternary_small", "binary_smaller"])
def test_binary_and_ternary_nets_of_the_keras_1_era(kind: str) -> None:
    spec, hls_model = _convert(f"KERAS_3layer_{kind}.json", f"KERAS_3layer_{kind}_weights.h5")
    given = x = _inputs(hls_model)
    trace = hls_model.trace(given)
    for layer in spec.layers:
        if layer.class_name != "InputLayer":
            x = _keras_1(layer, x)
        if layer.name in trace and layer.class_name != "BatchNormalization":
            assert np.array_equal(trace[layer.name], x), layer.name
    (wanted,), _ = reference.run(hls_model, given)
    assert np.array_equal(hls_model.predict(given), wanted)
    np.testing.assert_allclose(wanted, x, atol=1e-8)  # the last normalisation's numbers have 32 bits


def _keras_1(layer: LayerSpec, x: np.ndarray) -> np.ndarray:
    """Return a layer's output in float64."""
    config, arrays = layer.config, [w.astype(np.float64) for w in layer.weights]
    if layer.class_name == "TernaryDense":
        return x @ np.round(np.clip(arrays[0], -1, 1))
    if layer.class_name == "BinaryDense":
        return x @ (2 * np.round(np.clip(arrays[0], -1, 1) / 2 + 0.5) - 1)
    if layer.class_name == "BatchNormalization":
        gamma, beta, mean, variance = arrays
        return (x - mean) / np.sqrt(variance + config["epsilon"]) * gamma + beta
    if config["activation"] == "ternary_tanh":
        return np.round(np.clip(x, -1, 1))
    if config["activation"] == "binary_tanh":
        return np.where(x > 0, 1.0, -1.0)
    raise AssertionError(layer.class_name)
