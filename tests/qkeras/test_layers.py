"""Every QKeras layer, and quantizers in every place, on numbers that float32 computes exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


def _keras_1(kind: str, config: dict[str, Any], shape: tuple[int, ...], *arrays: np.ndarray) -> kconvert.HLSModel:
    """Convert a model of one layer as the Keras 1 era stored it: a description and arrays."""
    from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef

    names = ("kernel", "bias")[: len(arrays)]
    given = LayerSpec("InputLayer", "x", {"batch_shape": [None, *shape]}, calls=((),))
    layer = LayerSpec(kind, "q", config, calls=((TensorRef("x", 0),),), weights=arrays, weight_names=names)
    spec = ModelSpec("old", (given, layer), (TensorRef("x", 0),), (TensorRef("q", 0),))
    hls_model = kconvert.convert_from_keras_model(spec, kconvert.config_from_keras_model(spec, granularity="name"))
    hls_model.compile()
    return hls_model


HALF = np.array([-0.75, -0.5, -0.25, -1e-9, 0.0, 1e-9, 0.25, 0.5, 0.75, 3.0], dtype=np.float32)


@pytest.mark.parametrize("height", [1.0, 0.5])
def test_weights_of_the_keras_1_era(height: float) -> None:
    x = np.eye(len(HALF))
    config = {"use_bias": False, "activation": "linear", "H": height}
    kernel = (HALF * np.float32(height))[:, None]
    binary = _keras_1("BinaryDense", config, (len(HALF),), kernel).predict(x).ravel()
    assert (binary / height).tolist() == [-1, -1, -1, -1, -1, -1, 1, 1, 1, 1], "in float32, 1e-9 is no more than 0"
    ternary = _keras_1("TernaryDense", config, (len(HALF),), kernel).predict(x).ravel()
    assert (ternary / height).tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", ["BinaryConv2D", "TernaryConv2D"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolutions_of_the_keras_1_era(kind: str, padding: str) -> None:
    import keras

    random = np.random.default_rng(0)
    kernel, bias = random.uniform(-1, 1, (3, 2, 2, 4)).astype(np.float32), random.integers(-4, 4, 4) / 8
    config = {"filters": 4, "kernel_size": [3, 2], "strides": [2, 1], "padding": padding, "H": 0.25}
    config |= {"data_format": "channels_last", "use_bias": True, "activation": "linear"}
    hls_model = _keras_1(kind, config, (6, 5, 2), kernel, bias.astype(np.float32))
    x = np.round(random.normal(size=(20, 6, 5, 2)) * 32) / 32
    codes = np.sign(kernel) if kind == "BinaryConv2D" else np.round(np.clip(kernel / 0.25, -1, 1))
    wanted = keras.ops.conv(x.astype(np.float32), (codes * 0.25).astype(np.float32), (2, 1), padding) + bias
    assert np.array_equal(hls_model.predict(x), np.asarray(wanted))


def test_the_height_of_glorot() -> None:
    shapes = {
        "BinaryDense": (6, 4),
        "TernaryDense": (6, 4),
        "BinaryConv2D": (3, 2, 2, 4),
        "TernaryConv2D": (3, 2, 2, 4),
    }
    for kind, shape in shapes.items():
        config = {"filters": 4, "kernel_size": [3, 2], "strides": 1, "use_bias": False, "H": "Glorot"}
        hls_model = _keras_1(kind, config, (6,) if len(shape) == 2 else (3, 2, 2), np.ones(shape, dtype=np.float32))
        total = 6 + 4 if len(shape) == 2 else 3 * 2 * (2 + 4)
        alpha = next(node for node in hls_model if isinstance(node, ApplyAlpha))
        assert (alpha.scale == np.float32(np.sqrt(1.5 / total))).all(), kind


@pytest.mark.parametrize("height", ["Lasagne", 0, -1.0, True, None])
def test_a_height_that_is_none(height: Any) -> None:
    with pytest.raises(UnsupportedLayerError, match=r"'q'.*H=.*above zero, or 'Glorot'"):
        _keras_1("BinaryDense", {"H": height, "use_bias": False}, (2,), np.ones((2, 3), dtype=np.float32))


# ***** adaptive activations *****


def _adaptive(keras: Any, kind: str, low: float, high: float, **options: Any) -> Any:
    x = keras.Input((4,), name="x")
    layer = qkeras.QAdaptiveActivation(kind, 6, current_step=9, ema_freeze_delay=2, name="a", **options)
    model = keras.Model(x, layer(x))
    layer.ema_min.assign(np.full(layer.ema_min.shape, low))
    layer.ema_max.assign(np.full(layer.ema_max.shape, high))
    model(np.zeros((1, 4), dtype=np.float32))  # the bits of the next call are counted at the end of one
    return model


@pytest.mark.parametrize("po2_rounding", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (-5.9, 3.1), (-0.1, 7.95), (-8, 8), (-300, 1), (0, 1.5)])
@pytest.mark.parametrize("kind", ["quantized_relu", "quantized_bits"])
def test_an_adaptive_activation_has_the_bits_of_what_it_saw(
    kind: str, low: float, high: float, po2_rounding: bool
) -> None:
    import keras

    for more in ({"symmetric": False}, {"symmetric": True}, {"relu_neg_slope": 0.25}):
        if "relu_neg_slope" in more and kind != "quantized_relu":
            continue
        _compare(_adaptive(keras, kind, low, high, po2_rounding=po2_rounding, **more), scale=4.0)


def test_an_adaptive_activation_is_read_from_a_file(tmp_path: Path) -> None:
    import keras

    model = _adaptive(keras, "quantized_relu", -1.0, 6.0)
    wanted = kconvert.convert_from_keras_model(model)["a"].output.known_type()
    assert str(wanted) == "ap_ufixed<6,3,AP_RND_CONV,AP_SAT>"
    model.save(tmp_path / "model.keras")  # QKeras itself cannot write one of these into an .h5
    assert kconvert.convert_from_keras_model(tmp_path / "model.keras")["a"].output.known_type() == wanted


def test_one_adaptive_range_for_each_channel_is_refused() -> None:
    import keras

    model = _adaptive(keras, "quantized_relu", 0, 1, per_channel=True)
    with pytest.raises(UnsupportedLayerError, match=r"'a'.*per_channel"):
        kconvert.convert_from_keras_model(model)
