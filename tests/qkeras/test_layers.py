"""Every QKeras layer, and quantizers in every place, on numbers that float32 computes exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import ApplyAlpha
from tests import reference

qkeras: Any = pytest.importorskip("qkeras")


def _randomise(model: Any, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    for layer in model.layers:
        arrays = []
        for weight in layer.weights:
            name, shape = weight.path.rpartition("/")[-1], weight.shape
            if "variance" in name:  # a power of four, less Keras' epsilon: its inverse root is a power of two
                arrays.append(4.0 ** random.integers(-1, 2, shape) - 1e-3)
            elif "gamma" in name:
                arrays.append(2.0 ** random.integers(-1, 2, shape))
            elif "iteration" in name:
                arrays.append(np.zeros(shape))
            else:
                arrays.append(np.round(random.normal(size=shape) * 64) / 64)
        layer.set_weights([np.asarray(a, dtype=np.float32) for a in arrays])
    return model


def _compare(model: Any, *, exact: bool = True, scale: float = 1.0) -> kconvert.HLSModel:
    """Convert, and demand Keras' answers: to the bit, or to float32 rounding where Keras computes a root."""
    config = kconvert.config_from_keras_model(model, granularity="name")
    hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    random = np.random.default_rng(1)
    x = (np.round(random.normal(size=(60, *model.input_shape[1:])) * 32) / 32 * scale).astype(np.float32)
    answers = hls_model.predict(x)
    wanted, trace = reference.run(hls_model, x)
    assert np.array_equal(answers, wanted[0])
    keras = np.asarray(model(x, training=False))
    if exact:
        assert np.array_equal(answers, keras)
    else:
        np.testing.assert_allclose(answers, keras, atol=1e-3)
    assert list(kconvert.profiling.get_ymodel_keras(model, x)) == list(trace)
    return hls_model


def _bits(bits: int = 6, integer: int = 1, **options: Any) -> Any:
    return qkeras.quantized_bits(bits, integer, **{"alpha": 1, **options})


def _model(layer: Callable[[], Any], shape: tuple[int, ...]) -> Any:
    import keras

    x = keras.Input(shape, name="x")
    return _randomise(keras.Model(x, layer()(x)))


BOTH = {"kernel_quantizer": "quantized_bits(6,1,alpha=1)", "bias_quantizer": "quantized_bits(6,1,alpha=1)"}
DEPTHWISE = {"depthwise_quantizer": "quantized_bits(6,1,alpha=1)", "bias_quantizer": "quantized_bits(6,1,alpha=1)"}
SEPARABLE = {"pointwise_quantizer": "quantized_bits(5,1,alpha=1)", **DEPTHWISE}

LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dense": (lambda: qkeras.QDense(4, name="q", **BOTH), (5,)),
    "dense without bias": (lambda: qkeras.QDense(4, use_bias=False, kernel_quantizer=_bits(), name="q"), (5,)),
    "dense with activation": (lambda: qkeras.QDense(4, activation="quantized_relu(6,2)", name="q", **BOTH), (5,)),
    "conv1d": (lambda: qkeras.QConv1D(3, 2, strides=2, name="q", **BOTH), (7, 2)),
    "conv2d": (lambda: qkeras.QConv2D(3, (2, 3), padding="same", name="q", **BOTH), (5, 6, 2)),
    "depthwise": (lambda: qkeras.QDepthwiseConv2D(2, name="q", **DEPTHWISE), (5, 5, 3)),
    "depthwise multiplier": (
        lambda: qkeras.QDepthwiseConv2D(2, depth_multiplier=2, name="q", **DEPTHWISE),
        (4, 4, 3),
    ),
    "separable 1d": (lambda: qkeras.QSeparableConv1D(3, 2, name="q", **SEPARABLE), (6, 2)),
    "separable 2d": (lambda: qkeras.QSeparableConv2D(3, 2, name="q", **SEPARABLE), (5, 5, 2)),
    "transpose": (lambda: qkeras.QConv2DTranspose(3, 3, strides=2, name="q", **BOTH), (4, 4, 2)),
    "average": (lambda: qkeras.QAveragePooling2D(2, average_quantizer=_bits(8, 0), name="q"), (6, 6, 2)),
    "average of nine": (lambda: qkeras.QAveragePooling2D(3, average_quantizer=_bits(8, 0), name="q"), (6, 6, 2)),
    "global average": (lambda: qkeras.QGlobalAveragePooling2D(average_quantizer=_bits(8, 0), name="q"), (4, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    layer, shape = LAYERS[name]
    _compare(_model(layer, shape))


FOLDED = {
    "dense": (lambda: qkeras.QDenseBatchnorm(4, name="q", **BOTH), (5,)),
    "conv2d": (lambda: qkeras.QConv2DBatchnorm(3, 2, name="q", **BOTH), (5, 5, 2)),
    "depthwise": (lambda: qkeras.QDepthwiseConv2DBatchnorm(2, name="q", **DEPTHWISE), (5, 5, 2)),
    "normalisation": (
        lambda: qkeras.QBatchNormalization(
            gamma_quantizer=None, beta_quantizer=None, mean_quantizer=None, variance_quantizer=None, name="q"
        ),
        (5,),
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_layers_that_normalise(name: str) -> None:
    layer, shape = FOLDED[name]
    _compare(_model(layer, shape), exact=name != "normalisation")


@pytest.mark.parametrize(
    "activation",
    [
        "quantized_bits(5,1,alpha=1)",
        "quantized_bits(5,1,1,alpha=1)",
        "quantized_bits(5,1,keep_negative=False,alpha=1)",
        "quantized_relu(5,1)",
        "quantized_relu(5,2,negative_slope=0.25)",
        "quantized_tanh(5)",
        "quantized_tanh(5,symmetric=True)",
        "quantized_sigmoid(5)",
        "binary(alpha=1)",
        "ternary(alpha=1)",
        "ternary(alpha=2)",
        "quantized_po2(4)",
        "quantized_relu_po2(4)",
    ],
)
def test_activation(activation: str) -> None:
    _compare(_model(lambda: qkeras.QActivation(activation, name="act"), (5,)), scale=2.0)


@pytest.mark.parametrize("alpha", [1, 0.5, 4.0, "auto_po2"])
@pytest.mark.parametrize("kind", ["quantized_bits", "binary", "ternary"])
def test_a_power_of_two_costs_no_bit(alpha: Any, kind: str) -> None:
    options = {"bits": 5, "integer": 1} if kind == "quantized_bits" else {}
    quantizer = getattr(qkeras, kind)(alpha=alpha, **options)
    hls_model = _compare(_model(lambda: qkeras.QDense(4, kernel_quantizer=quantizer, bias_quantizer=_bits()), (5,)))
    if not isinstance(alpha, str):
        assert not any(isinstance(node, ApplyAlpha) for node in hls_model), "one shift for all is no node"


@pytest.mark.parametrize("kind", ["quantized_bits", "binary", "ternary"])
def test_any_other_alpha_scales_the_sum_and_not_the_bias(kind: str) -> None:
    options = {"bits": 5, "integer": 1} if kind == "quantized_bits" else {}
    quantizer = getattr(qkeras, kind)(alpha="auto", **options)
    model = _model(lambda: qkeras.QDense(4, kernel_quantizer=quantizer, bias_quantizer=_bits(), name="q"), (5,))
    hls_model = _compare(model, exact=False)
    assert [type(node).__name__ for node in hls_model] == ["Input", "Dense", "ApplyAlpha"]
    codes = hls_model["q"].constants()["weight"].values
    assert np.array_equal(codes, np.round(codes * 16) / 16)


def test_alpha_and_normalisation_become_one() -> None:
    import keras

    x = keras.Input((5,), name="x")
    y = qkeras.QDense(4, kernel_quantizer=qkeras.ternary(alpha="auto"), bias_quantizer=_bits(), name="q")(x)
    hls_model = _compare(_randomise(keras.Model(x, keras.layers.BatchNormalization(name="bn")(y))), exact=False)
    assert [type(node).__name__ for node in hls_model] == ["Input", "Dense", "ApplyAlpha"]
    assert list(hls_model.trace(np.zeros((1, 5)))) == ["bn"]


def test_the_settings_show_the_quantizers_and_editing_them_takes_effect() -> None:
    model = _model(lambda: qkeras.QDense(4, activation="quantized_relu(6,2)", name="q", **BOTH), (5,))
    config = kconvert.config_from_keras_model(model, granularity="name")
    entry = config["LayerName"]["q"]["Precision"]
    assert entry["weight"] == "ap_fixed<6,2,AP_RND_CONV,AP_SAT>"
    assert config["LayerName"]["q_quantized_relu"]["Precision"]["result"] == "ap_ufixed<6,2,AP_RND_CONV,AP_SAT>"
    by_type = kconvert.config_from_keras_model(model, granularity="type")
    assert by_type["LayerType"]["QDense"]["Precision"]["weight"] == entry["weight"]
    entry["weight"] = "ap_fixed<3,2>"
    hls_model = kconvert.convert_from_keras_model(model, config)
    assert str(hls_model["q"].typed("weight")) == "ap_fixed<3,2>"


def test_an_unknown_quantizer_is_an_error_that_names_the_layer() -> None:
    spec = kconvert.read_model(_model(lambda: qkeras.QDense(4, name="q", **BOTH), (5,)))
    layer = spec["q"]
    changed = dict(layer.config, kernel_quantizer={"class_name": "quantised_bits", "config": {}})
    import dataclasses

    layers = tuple(dataclasses.replace(one, config=changed) if one is layer else one for one in spec.layers)
    with pytest.raises(UnsupportedLayerError, match=r"'q'.*'quantised_bits'; did you mean 'quantized_bits'"):
        kconvert.convert_from_keras_model(dataclasses.replace(spec, layers=layers))
