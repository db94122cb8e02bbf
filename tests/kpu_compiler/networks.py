"""Small Keras networks as tflite, made once in a run, and LiteRT to run them."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.comparison import run_tflite
from kconvert.kpu import KModel, to_nchw

Array = npt.NDArray[Any]


def converted(model: Any) -> bytes:
    """Return a Keras model as tflite, without what TensorFlow prints."""
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):
        made: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return made


def chain(shape: tuple[int, ...], *layers: Any) -> Any:
    import keras

    x = first = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(first, x)


def _conv(filters: int, kernel: int = 3, **options: Any) -> Any:
    from keras import layers as L

    return L.Conv2D(filters, kernel, **{"padding": "same", "bias_initializer": "normal", **options})


def _transposed(kernel: int, stride: int, padding: str, activation: str = "tanh") -> Any:
    from keras import layers as L

    deconv = L.Conv2DTranspose(
        6, kernel, strides=stride, padding=padding, bias_initializer="normal", activation=activation
    )
    return chain((8, 8, 4), _conv(4, activation="relu"), deconv)


def _unet() -> Any:
    import keras
    from keras import layers as L

    first = keras.Input((16, 16, 3))
    a = _conv(8, activation="relu")(first)
    b = _conv(8, activation="relu")(L.MaxPool2D()(a))
    up = L.Concatenate()([L.UpSampling2D()(b), a])
    return keras.Model(first, _conv(3, activation="sigmoid")(up))


def _scaled() -> Any:
    from keras import layers as L

    norm = L.BatchNormalization(gamma_initializer="normal", beta_initializer="normal")
    return chain((16, 16, 3), _conv(8, activation="relu"), norm, _conv(4, padding="valid"))


def _layers() -> Any:
    from keras import layers

    return layers


NETWORKS: dict[str, Callable[[], Any]] = {
    "transposed": lambda: _transposed(3, 2, "same", "relu"),
    "transposed_valid": lambda: _transposed(3, 2, "valid"),
    "transposed_4": lambda: _transposed(4, 2, "same"),
    "transposed_7_on_the_cpu": lambda: _transposed(7, 2, "same", "relu"),
    "bilinear": lambda: chain(
        (8, 8, 4), _conv(8, activation="relu"), _layers().UpSampling2D(interpolation="bilinear"), _conv(4)
    ),
    "prelu": lambda: chain(
        (16, 16, 3), _conv(8), _layers().PReLU(shared_axes=[1, 2], alpha_initializer="uniform"), _conv(4)
    ),
    "curves": lambda: chain(
        (16, 16, 3), _conv(8, activation="elu"), _conv(8, activation="tanh"), _conv(8, activation="swish")
    ),
    "unet": _unet,
    "relu_after_pool": lambda: chain((16, 16, 3), _conv(8), _layers().MaxPool2D(), _layers().ReLU(), _conv(4)),
    "depthwise_stride": lambda: chain(
        (16, 16, 3),
        _conv(8, activation="relu"),
        _layers().DepthwiseConv2D(3, strides=2, padding="same", activation="relu6"),
        _conv(16, 1),
    ),
    "pixels_from_minus_1": lambda: chain(
        (16, 16, 3), _layers().Rescaling(2.0, -1.0), _conv(8, strides=2, activation="relu"), _conv(8, strides=2)
    ),
    "dense": lambda: chain(
        (8, 8, 3),
        _conv(8, activation="relu"),
        _layers().Flatten(),
        _layers().Dense(32, activation="relu"),
        _layers().Dense(4, activation="softmax", use_bias=False),
    ),
    "scale_after_relu": _scaled,
    "dilated": lambda: chain((16, 16, 3), _conv(8, dilation_rate=2), _conv(4, dilation_rate=3, padding="valid")),
    "groups": lambda: chain((16, 16, 4), _conv(8, groups=2)),
    "many_weight_loads": lambda: chain((4, 4, 256), _conv(1024)),
    "other_strides": lambda: chain((17, 19, 3), _conv(8, strides=3, activation="relu"), _conv(8, 5)),
}


@functools.cache
def tflite(name: str) -> bytes:
    import keras

    keras.utils.set_random_seed(1)
    return converted(NETWORKS[name]())


def shape_of(name: str) -> tuple[int, ...]:
    from kconvert.kpu.compiler import read_tflite

    _, c, h, w = read_tflite(tflite(name)).inputs[0].shape
    return h, w, c


def images(shape: tuple[int, ...], count: int = 16) -> Array:
    """Return pixels [count, height, width, channels]."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def error(model: KModel, source: bytes, pixels: Array) -> tuple[float, float]:
    """Return the mean and the largest difference from LiteRT, as parts of the range of its answers."""
    reals = pixels.astype(np.float32) / np.float32(255)
    (wanted,) = run_tflite(source, [reals])
    in_bytes = model.inputs[0].range.datatype.itemsize == 1
    (found,) = model.infer(to_nchw(pixels if in_bytes else reals))
    wanted = to_nchw(wanted) if wanted.ndim == 4 else wanted
    difference = np.abs(found.reshape(wanted.shape) - wanted) / np.ptp(wanted)
    return float(difference.mean()), float(difference.max())
