"""Small Keras 3 models for the whole suite, all of them the same in every run.

Keras is imported inside the factories only, so that collecting tests does not load TensorFlow. Weights are
set from a fixed seed, batch normalisation statistics included, so that no layer is an identity by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _keras() -> Any:
    import keras

    return keras


def randomise(model: Any, seed: int = 1) -> Any:
    """Give `model` reproducible weights of about the size training leaves, and return it.

    Variances and gammas are drawn from [0.5, 1.5), everything else from [-0.5, 0.5), in steps of 2**-10 so
    that converted and original weights can be equal.
    """
    rng = np.random.default_rng(seed)

    def draw(weight: Any) -> Any:
        positive = weight.name.rpartition("/")[2].startswith(("moving_variance", "gamma"))
        return np.round((rng.random(weight.shape) - 0.5 + positive) * 1024) / 1024

    model.set_weights([draw(weight) for weight in model.weights])
    return model


def mlp() -> Any:
    """The jet tagger: dense layers with ReLU and a softmax at the end, 16 to 5."""
    keras = _keras()
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                layers.Input((16,), name="jet_features"),
                layers.Dense(32, activation="relu", name="fc1"),
                layers.Dense(16, activation="relu", name="fc2"),
                layers.Dense(5, name="output"),
                layers.Activation("softmax", name="softmax"),
            ],
            name="mlp",
        )
    )


def mlp_batchnorm() -> Any:
    """Dense, batch normalisation and activation as layers of their own, one normalisation without scale."""
    keras = _keras()
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                layers.Input((8,), name="hits"),
                layers.Dense(12, use_bias=False, name="fc1"),
                layers.BatchNormalization(name="bn1"),
                layers.ReLU(name="relu1"),
                layers.Dense(6, name="fc2"),
                layers.BatchNormalization(scale=False, name="bn2"),
                layers.Activation("tanh", name="tanh2"),
                layers.Dropout(0.2, name="dropout"),
                layers.Dense(1, activation="sigmoid", name="output"),
            ],
            name="mlp_batchnorm",
        )
    )


def conv1d_net() -> Any:
    """1D convolutions with both paddings over a short waveform, with pooling."""
    keras = _keras()
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                layers.Input((20, 3), name="waveform"),
                layers.Conv1D(4, 3, padding="same", activation="relu", name="conv1"),
                layers.MaxPooling1D(2, name="pool1"),
                layers.Conv1D(6, 4, strides=2, name="conv2"),
                layers.LeakyReLU(negative_slope=0.125, name="leaky2"),
                layers.Flatten(name="flatten"),
                layers.Dense(4, name="output"),
            ],
            name="conv1d_net",
        )
    )


def conv2d_net() -> Any:
    """An image classifier: padding, convolutions, batch normalisation, both poolings."""
    keras = _keras()
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                layers.Input((10, 10, 1), name="image"),
                layers.ZeroPadding2D(1, name="pad"),
                layers.Conv2D(4, 3, name="conv1", use_bias=False),
                layers.BatchNormalization(name="bn1"),
                layers.ReLU(name="relu1"),
                layers.MaxPooling2D(2, name="pool1"),
                layers.Conv2D(6, (3, 2), padding="same", activation="relu", name="conv2"),
                layers.GlobalAveragePooling2D(name="average"),
                layers.Dense(3, activation="softmax", name="output"),
            ],
            name="conv2d_net",
        )
    )


def depthwise_net() -> Any:
    """Depthwise and separable convolutions, as in small vision models."""
    keras = _keras()
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                layers.Input((8, 8, 3), name="image"),
                layers.DepthwiseConv2D(3, padding="same", name="depthwise1"),
                layers.ReLU(max_value=6.0, name="relu6_1"),
                layers.Conv2D(4, 1, name="pointwise1"),
                layers.SeparableConv2D(5, 3, strides=2, name="separable2"),
                layers.AveragePooling2D(2, name="pool"),
                layers.Flatten(name="flatten"),
                layers.Dense(2, name="output"),
            ],
            name="depthwise_net",
        )
    )


def residual_two_inputs() -> Any:
    """Two inputs, merged by Concatenate, and a residual Add."""
    keras = _keras()
    layers = keras.layers
    tracks = keras.Input((6,), name="tracks")
    clusters = keras.Input((4,), name="clusters")
    stem = layers.Concatenate(name="merge")([layers.Dense(5, activation="relu", name="fc_tracks")(tracks), clusters])
    stem = layers.Dense(8, activation="relu", name="stem")(stem)
    branch = layers.Dense(8, name="branch")(stem)
    joined = layers.ReLU(name="relu")(layers.Add(name="residual")([stem, branch]))
    return randomise(
        keras.Model([tracks, clusters], layers.Dense(3, name="output")(joined), name="residual_two_inputs")
    )


def multi_output() -> Any:
    """One trunk with a classification and a regression output, of which the latter is also used inside."""
    keras = _keras()
    layers = keras.layers
    x = keras.Input((7,), name="features")
    trunk = layers.Dense(9, activation="relu", name="trunk")(x)
    energy = layers.Dense(1, name="energy")(trunk)
    both = layers.Concatenate(name="with_energy")([trunk, energy])
    label = layers.Dense(4, activation="softmax", name="label")(both)
    return randomise(keras.Model(x, [label, energy], name="multi_output"))


def shared_tensor_net() -> Any:
    """One tensor with three users, and one layer called twice (a siamese pair)."""
    keras = _keras()
    layers = keras.layers
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    embed = layers.Dense(5, activation="relu", name="embed")
    a, b = embed(left), embed(right)
    total = layers.Add(name="total")([a, b])
    product = layers.Multiply(name="product")([a, b])
    difference = layers.Subtract(name="difference")([a, left])
    merged = layers.Concatenate(name="merge")([total, product, difference])
    return randomise(keras.Model([left, right], layers.Dense(2, name="output")(merged), name="shared_tensor_net"))


def nested_net() -> Any:
    """A functional model inside a model, called twice, with a Sequential inside it."""
    keras = _keras()
    layers = keras.layers
    head = keras.Sequential(
        [layers.Input((6,)), layers.Dense(6, name="fc"), layers.BatchNormalization(name="bn")], name="head"
    )
    inner_in = keras.Input((6,), name="block_in")
    hidden = layers.Dense(6, activation="relu", name="fc")(inner_in)
    block = keras.Model(inner_in, layers.Add(name="skip")([head(hidden), inner_in]), name="block")
    x = keras.Input((6,), name="features")
    once = block(x)
    return randomise(keras.Model(x, [layers.Dense(2, name="output")(once), block(once)], name="nested_net"))


MODELS: dict[str, Callable[[], Any]] = {
    factory.__name__: factory
    for factory in (
        mlp,
        mlp_batchnorm,
        conv1d_net,
        conv2d_net,
        depthwise_net,
        residual_two_inputs,
        multi_output,
        shared_tensor_net,
        nested_net,
    )
}
