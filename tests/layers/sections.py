"""Every layer that converts, with its options, in small Keras models of many outputs: the cases of docs/layers.md.

Each function is one section of that page and one model. It yields (layer, options, result), a result being a tensor, or
several of a layer that returns several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SHAPES: Mapping[str, tuple[int, ...]] = {
    "image": (6, 7, 4),
    "like_image": (6, 7, 4),
    "line": (8, 3),
    "like_line": (8, 3),
    "vector": (6,),
    "like_vector": (6,),
    "rows": (5, 3),
    "keys": (4, 3),
    "values": (4, 2),
    "state": (3,),
    "cell": (3,),
    "tokens": (5,),
    "films": (3, 4, 5, 2),
}
TOKENS = 7
"""The input `tokens` holds whole numbers from 0 to below this; all others hold numbers of either sign."""


class Inputs:
    """Input tensors by name, made when they are first asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        import keras

        if name not in _SHAPES:
            raise AttributeError(name)
        return self.made.setdefault(name, keras.Input(_SHAPES[name], name=name))


Results = Iterator[tuple[str, str, Any]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        build: Yields its cases.
        bound: Largest error there may be, in 2**-18, the step of fixed<32,14>.
        note: What is to be said about the errors.
    """

    title: str
    build: Callable[[Inputs], Results]
    bound: float
    note: str = ""


def _dense(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    yield "Dense", "with and without bias", layers.Dense(4)(layers.Dense(3, use_bias=False)(x.vector))
    yield "Dense", "over the last of several axes", layers.Dense(3)(x.image)
    yield "Dense", "activation", layers.Dense(3, activation="relu")(x.vector)
    einsum = layers.EinsumDense
    yield "EinsumDense", "matrix products of any axes", einsum("abc,cd->abd", (None, 4), bias_axes="d")(x.line)
    yield "EinsumDense", "several new axes", einsum("abc,cde->abde", (None, 2, 2), bias_axes="de")(x.line)
    yield "EinsumDense", "several summed axes", einsum("abcd,bce->ade", (None, 3))(x.image)
    yield "EinsumDense", "ellipsis", einsum("...x,xy->...y", 2)(x.image)
    yield "Embedding", "", layers.Embedding(TOKENS, 3)(x.tokens)
    yield "Dot", "axes", layers.Dot(axes=(2, 2))([x.rows, x.keys])
    yield "Dot", "of vectors", layers.Dot(axes=1)([x.vector, x.like_vector])
    yield "Attention", "", layers.Attention()([x.rows, x.keys])
    yield "Attention", "use_scale, key", layers.Attention(use_scale=True)([x.rows, x.values, x.keys])
    attention = layers.MultiHeadAttention
    yield "MultiHeadAttention", "num_heads, key_dim", attention(2, 3)(x.rows, x.keys)
    yield (
        "MultiHeadAttention",
        "value_dim, output_shape, without bias",
        attention(2, 2, value_dim=3, use_bias=False, output_shape=4)(x.rows, x.values, x.keys),
    )


def _convolutions(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    for padding in ("valid", "same", "causal"):
        yield "Conv1D", f"padding {padding}", layers.Conv1D(3, 3, padding=padding)(x.line)
    yield "Conv1D", "strides", layers.Conv1D(3, 2, strides=3)(x.line)
    yield "Conv1D", "dilation_rate", layers.Conv1D(3, 3, dilation_rate=2, padding="same")(x.line)
    yield "Conv1D", "dilation_rate, causal", layers.Conv1D(3, 2, dilation_rate=3, padding="causal")(x.line)
    yield "Conv1D", "groups", layers.Conv1D(6, 3, groups=3)(x.line)
    yield "Conv2D", "padding valid", layers.Conv2D(3, 3)(x.image)
    yield "Conv2D", "padding same", layers.Conv2D(3, (3, 2), padding="same")(x.image)
    yield "Conv2D", "strides", layers.Conv2D(2, (2, 3), strides=(3, 2), padding="same")(x.image)
    yield "Conv2D", "dilation_rate", layers.Conv2D(2, 2, dilation_rate=(2, 3))(x.image)
    yield "Conv2D", "groups", layers.Conv2D(4, 3, groups=2, padding="same")(x.image)
    yield "Conv2D", "activation, without bias", layers.Conv2D(2, 1, activation="relu", use_bias=False)(x.image)
    yield "DepthwiseConv1D", "depth_multiplier", layers.DepthwiseConv1D(3, depth_multiplier=2)(x.line)
    yield "DepthwiseConv1D", "padding same, strides", layers.DepthwiseConv1D(2, strides=3, padding="same")(x.line)
    yield "DepthwiseConv2D", "depth_multiplier", layers.DepthwiseConv2D((2, 3), depth_multiplier=2)(x.image)
    yield "DepthwiseConv2D", "padding same, strides", layers.DepthwiseConv2D(3, strides=2, padding="same")(x.image)
    yield "DepthwiseConv2D", "dilation_rate", layers.DepthwiseConv2D(2, dilation_rate=2)(x.image)
    yield "SeparableConv1D", "depth_multiplier, strides", layers.SeparableConv1D(2, 3, 2, depth_multiplier=2)(x.line)
    yield "SeparableConv2D", "padding same", layers.SeparableConv2D(3, 3, padding="same")(x.image)
    yield "Conv1DTranspose", "strides", layers.Conv1DTranspose(2, 3, strides=2)(x.line)
    yield "Conv1DTranspose", "padding same", layers.Conv1DTranspose(2, 3, padding="same")(x.line)
    yield "Conv2DTranspose", "strides", layers.Conv2DTranspose(2, (2, 3), strides=(3, 2))(x.image)
    yield (
        "Conv2DTranspose",
        "padding same, output_padding",
        layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1)(x.image),
    )


def _images(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    for name in ("Max", "Average"):
        one, two = getattr(layers, f"{name}Pooling1D"), getattr(layers, f"{name}Pooling2D")
        yield f"{name}Pooling1D", "", one(2)(x.line)
        yield (
            f"{name}Pooling1D",
            "strides other than pool_size, padding same",
            one(3, strides=2, padding="same")(x.line),
        )
        yield f"{name}Pooling2D", "", two(2)(x.image)
        yield f"{name}Pooling2D", "strides, padding same", two((3, 2), strides=(2, 1), padding="same")(x.image)
        one, two = getattr(layers, f"Global{name}Pooling1D"), getattr(layers, f"Global{name}Pooling2D")
        yield f"Global{name}Pooling1D", "", one()(x.line)
        yield f"Global{name}Pooling2D", "", two()(x.image)
        yield f"Global{name}Pooling2D", "keepdims", two(keepdims=True)(x.image)
    yield "UpSampling1D", "", layers.UpSampling1D(3)(x.line)
    yield "UpSampling2D", "nearest", layers.UpSampling2D((2, 3))(x.image)
    yield "UpSampling2D", "bilinear", layers.UpSampling2D(2, interpolation="bilinear")(x.image)
    yield "UpSampling2D", "bilinear by 3", layers.UpSampling2D(3, interpolation="bilinear")(x.image)
    yield "ZeroPadding1D", "unequal sides", layers.ZeroPadding1D((1, 3))(x.line)
    yield "ZeroPadding2D", "unequal sides", layers.ZeroPadding2D(((0, 2), (3, 1)))(x.image)
    yield "Cropping1D", "unequal sides", layers.Cropping1D((1, 3))(x.line)
    yield "Cropping2D", "unequal sides", layers.Cropping2D(((0, 2), (3, 1)))(x.image)
    yield "Flatten", "", layers.Flatten()(x.image)
    yield "Reshape", "", layers.Reshape((3, 8))(x.line)
    yield "Reshape", "to other ranks, -1", layers.Reshape((2, -1, 4, 1))(x.line)
    yield "Reshape", "behind a layer and before one", layers.Dense(2)(layers.Reshape((6, 4))(layers.Dense(3)(x.line)))
    yield "Permute", "any order", layers.Permute((3, 1, 2))(x.image)
    yield "RepeatVector", "", layers.RepeatVector(3)(x.vector)
    yield "Dropout", "", layers.Dropout(0.5)(x.vector)
    yield "SpatialDropout1D", "", layers.SpatialDropout1D(0.5)(x.line)
    yield "SpatialDropout2D", "", layers.SpatialDropout2D(0.5)(x.image)
    for name in ("AlphaDropout", "GaussianDropout", "GaussianNoise"):
        yield name, "", getattr(layers, name)(0.5)(x.vector)
    yield "Identity", "", layers.Identity()(x.vector)
    yield "ActivityRegularization", "", layers.ActivityRegularization(1e-4)(x.vector)


def _merges(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    a, b = x.image, x.like_image
    third = layers.Dense(4)(a)
    for name in ("Add", "Multiply", "Average", "Maximum", "Minimum"):
        yield name, "any number of tensors", getattr(layers, name)()([a, b, third])
    yield "Subtract", "", layers.Subtract()([a, third])
    per_channel = layers.Dense(4)(x.vector)
    for name in ("Add", "Subtract", "Multiply", "Maximum"):
        scalars = layers.Reshape((1, 1, 4))(per_channel)
        yield name, "shapes repeated as numpy does", getattr(layers, name)()([a, scalars])
    for axis in (1, 2, -1):
        yield "Concatenate", f"axis {axis}", layers.Concatenate(axis=axis)([a, b])
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(3)])
    yield "Sequential, Model", "as a layer", inner(x.vector)
    deeper = keras.Sequential([layers.Input((6,)), inner, layers.ReLU()])
    yield "Sequential, Model", "in one another", deeper(x.like_vector)
    shared = layers.Dense(3)
    yield "shared layers", "on several tensors", layers.Add()([shared(x.vector), shared(x.like_vector)])
    yield "operations", "x + y, x - y, x * y", (x.line + x.like_line) * (x.line - x.like_line)
    yield "operations", "numbers: 2 * x - 1, 1 - x, x / 4, -x", 2 * x.line - 1 + (1 - x.line) + x.line / 4 - (-x.line)
    ops = keras.ops
    yield "operations", "ops.relu, ops.sigmoid, ops.softmax", ops.softmax(ops.relu(x.line) + ops.sigmoid(x.line))
    yield "operations", "ops.maximum, ops.minimum", ops.maximum(ops.minimum(x.line, x.like_line), 0)
    yield "operations", "ops.matmul", ops.matmul(x.rows, ops.transpose(x.keys, (0, 2, 1)))
    yield "operations", "ops.mean, ops.max", ops.mean(x.image, axis=(1, 2)) + ops.max(x.image, axis=(1, 2))
    yield "operations", "ops.concatenate", ops.concatenate([x.line, x.like_line], axis=-1)
    yield "operations", "ops.reshape", ops.reshape(x.line, (-1, 3, 8))
    yield "operations", "ops.expand_dims, ops.squeeze", ops.squeeze(ops.expand_dims(x.vector, 1), 1)
    yield "operations", "x[:, 1:-1, ::2], x[..., 0]", x.line[:, 1:-1, ::2]
    yield "operations", "x[:, 1:-1, ::2], x[..., 0]", x.image[..., 0]
    yield "operations", "ops.square", ops.square(x.vector)


def _normalisations(x: Inputs) -> Results:
    import keras
    import numpy as np

    layers = keras.layers
    yield "BatchNormalization", "", layers.BatchNormalization()(x.image)
    yield "BatchNormalization", "without scale, center", layers.BatchNormalization(scale=False, center=False)(x.line)
    yield "BatchNormalization", "axis 1", layers.BatchNormalization(axis=1)(x.image)
    yield "BatchNormalization", "axis 2", layers.BatchNormalization(axis=2)(x.image)
    yield "LayerNormalization", "", layers.LayerNormalization()(x.vector)
    plain = layers.LayerNormalization(axis=(1, 2), scale=False, center=False)
    yield "LayerNormalization", "over several axes; without scale, center", plain(x.line)
    yield "LayerNormalization", "axis 1", layers.LayerNormalization(axis=1)(x.line)
    yield "RMSNormalization", "", layers.RMSNormalization()(x.line)
    yield "GroupNormalization", "groups", layers.GroupNormalization(2)(x.image)
    yield "GroupNormalization", "groups -1", layers.GroupNormalization(-1)(x.line)
    yield "UnitNormalization", "", layers.UnitNormalization()(x.line)
    yield "UnitNormalization", "axis 1", layers.UnitNormalization(axis=1)(x.line)
    yield "Rescaling", "numbers", layers.Rescaling(1 / 4, offset=-0.5)(x.image)
    yield "Rescaling", "per channel", layers.Rescaling([0.5, 1.5, 2.0], offset=[0.0, 1.0, -1.0])(x.line)
    mean, variance = np.array([0.5, -1.0, 0.25]), np.array([1.0, 2.0, 0.5])
    yield "Normalization", "", layers.Normalization(mean=mean, variance=variance)(x.line)
    yield "Normalization", "invert", layers.Normalization(mean=mean, variance=variance, invert=True)(x.line)
    yield "Normalization", "one mean for all", layers.Normalization(axis=None, mean=0.5, variance=2.0)(x.image)


def _lines(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    for name in ("linear", "relu", "relu6", "leaky_relu", "hard_sigmoid", "hard_tanh", "sparse_sigmoid"):
        yield f"Activation {name}", "", layers.Activation(name)(x.vector)
    yield "Activation hard_silu", "also hard_swish", layers.Activation("hard_silu")(x.vector)
    yield "ReLU", "", layers.ReLU()(x.vector)
    yield "ReLU", "max_value", layers.ReLU(max_value=1.5)(x.vector)
    yield "ReLU", "negative_slope", layers.ReLU(negative_slope=0.3)(x.vector)
    yield "ReLU", "threshold", layers.ReLU(threshold=0.7)(x.vector)
    yield "ReLU", "all three", layers.ReLU(max_value=2.5, negative_slope=0.3, threshold=0.7)(x.vector)
    yield "LeakyReLU", "", layers.LeakyReLU(negative_slope=0.1)(x.image)
    yield "PReLU", "", layers.PReLU()(x.line)
    yield "PReLU", "shared_axes", layers.PReLU(shared_axes=[1, 2])(x.image)
    yield "PReLU", "shared last axis", layers.PReLU(shared_axes=[2])(x.line)


def _smooth(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    smooth = ("selu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softsign", "exponential", "mish")
    for name in (*smooth, "celu", "log_sigmoid", "tanh_shrink", "soft_shrink"):
        yield f"Activation {name}", "also swish" if name == "silu" else "", layers.Activation(name)(x.vector)
    yield "ELU", "alpha", layers.ELU(alpha=0.5)(x.vector)
    yield "Softmax", "", layers.Softmax()(x.vector)
    yield "Softmax", "last axis", layers.Activation("softmax")(x.line)
    yield "Softmax", "axis 1", layers.Softmax(axis=1)(x.line)
    yield "Softmax", "axis 2", layers.Softmax(axis=2)(x.image)


def _recurrent(x: Inputs) -> Results:
    import keras

    layers = keras.layers
    for name in ("SimpleRNN", "LSTM", "GRU"):
        kind = getattr(layers, name)
        yield name, "return_sequences", kind(3, return_sequences=True)(x.rows)
        states = [x.state, x.cell] if name == "LSTM" else [x.state]
        yield name, "initial_state, return_state", kind(3, return_state=True)(x.rows, initial_state=states)
        yield name, "go_backwards", kind(2, go_backwards=True, return_sequences=True)(x.rows)
    yield "GRU", "reset_after=False", layers.GRU(3, reset_after=False)(x.rows)
    yield "LSTM", "other activations", layers.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid")(x.rows)
    yield "RNN", "of a cell of those", layers.RNN(layers.GRUCell(2))(x.rows)
    bidirectional = layers.Bidirectional
    yield "Bidirectional", "", bidirectional(layers.LSTM(2, return_sequences=True))(x.rows)
    yield "Bidirectional", "merge_mode sum", bidirectional(layers.SimpleRNN(2), merge_mode="sum")(x.rows)
    apart = bidirectional(layers.GRU(2), backward_layer=layers.GRU(2, go_backwards=True), merge_mode=None)(x.rows)
    yield "Bidirectional", "merge_mode None; backward_layer", apart
    yield "TimeDistributed", "layers of the last axis", layers.TimeDistributed(layers.Dense(2))(x.rows)
    yield "TimeDistributed", "any layer, such as Conv2D", layers.TimeDistributed(layers.Conv2D(2, 3))(x.films)
    yield "TimeDistributed", "Flatten, Reshape", layers.TimeDistributed(layers.Flatten())(x.films)


_TABLES = """These are read from a table, on the straight line between two of its entries. There are 4096 of them, for a
type as fine as this; a `table_size` four times as large makes the error up to sixteen times smaller."""

_IN_CELLS = "Their sigmoid and tanh are read from such tables, too."

SECTIONS: Mapping[str, Section] = {
    "dense": Section("Matrices and attention", _dense, 64),
    "convolutions": Section("Convolutions", _convolutions, 2),
    "images": Section("Pooling, up-sampling, shapes", _images, 2),
    "merges": Section("Several tensors, models, operations", _merges, 64),
    "normalisations": Section("Normalisations", _normalisations, 8),
    "lines": Section("Activations of straight lines", _lines, 2),
    "smooth": Section("Smooth activations", _smooth, 8, _TABLES),
    "recurrent": Section("Recurrent layers, layers around layers", _recurrent, 8, _IN_CELLS),
}


# ***** what is refused *****


def refused() -> Results:
    """Yield (what, part of the message, model) for everything near the above that does not convert."""
    import keras

    layers, ops = keras.layers, keras.ops

    def of(name: str, function: Callable[[Any], Any]) -> Any:
        x = getattr(Inputs(), name)
        return keras.Model(x, function(x))

    yield "Conv3D, other layers of volumes", "class 'Conv3D' is not supported", of("films", layers.Conv3D(2, 2))
    yield "ConvLSTM1D, ConvLSTM2D", "class 'ConvLSTM1D' is not supported", of("image", layers.ConvLSTM1D(2, 2))
    yield "Masking", "class 'Masking' is not supported", of("line", layers.Masking())
    yield (
        "AdditiveAttention",
        "class 'AdditiveAttention' is not supported",
        of("rows", lambda x: layers.AdditiveAttention()([x, x])),
    )
    yield (
        "Discretization, CategoryEncoding",
        "class 'Discretization' is not supported",
        of("vector", layers.Discretization(bin_boundaries=[0.0, 1.0])),
    )
    yield "Lambda", "its Python code is not run", of("vector", layers.Lambda(lambda x: x * 2))
    yield (
        "data_format channels_first",
        "data_format='channels_first' is not supported, only 'channels_last'",
        of("image", layers.MaxPooling2D(2, data_format="channels_first")),
    )
    yield (
        "Conv2DTranspose, dilation_rate",
        "dilation_rate=[2, 2] is not supported",
        of("image", layers.Conv2DTranspose(2, 2, dilation_rate=2)),
    )
    yield (
        "UpSampling2D, other interpolations",
        "only 'nearest' or 'bilinear'",
        of("image", layers.UpSampling2D(2, interpolation="bicubic")),
    )
    yield (
        "LayerNormalization, axes apart",
        "only axes next to each other",
        of("image", layers.LayerNormalization(axis=[1, 3])),
    )
    yield (
        "GroupNormalization, another axis",
        "axis=1 is not supported, only -1",
        of("line", layers.GroupNormalization(2, axis=1)),
    )
    yield "Softmax over several axes", "only one axis", of("image", layers.Softmax(axis=[1, 2]))
    yield (
        "Activation log_softmax",
        "activation 'log_softmax' is not supported",
        of("vector", layers.Activation("log_softmax")),
    )
    yield (
        "Concatenate along the batch",
        "cannot join along the batch axis",
        of("line", lambda x: layers.Concatenate(axis=0)([x, x])),
    )
    yield (
        "Dot, normalize",
        "normalize=True is not supported",
        of("vector", lambda x: layers.Dot(axes=1, normalize=True)([x, x])),
    )
    yield (
        "EinsumDense, not a matrix product",
        "is no matrix product of the last axes",
        of("line", layers.EinsumDense("abc,bc->abc", (8, 3))),
    )
    yield (
        "Embedding, mask_zero",
        "mask_zero=True is not supported",
        of("tokens", layers.Embedding(5, 2, mask_zero=True)),
    )
    yield (
        "Attention, score_mode concat",
        "score_mode='concat' is not supported, only 'dot'",
        of("rows", lambda x: layers.Attention(score_mode="concat")([x, x])),
    )
    yield (
        "MultiHeadAttention over several axes",
        "attention_axes=[1, 2] is not supported",
        of("image", lambda x: layers.MultiHeadAttention(2, 2, attention_axes=(1, 2))(x, x)),
    )
    yield (
        "use_causal_mask and other masks",
        "is called with use_causal_mask=True",
        of("rows", lambda x: layers.MultiHeadAttention(2, 2)(x, x, use_causal_mask=True)),
    )
    yield (
        "stateful recurrent layers",
        "stateful=True is not supported",
        keras.Sequential([layers.Input((3, 2), batch_size=1), layers.GRU(2, stateful=True)]),
    )
    yield (
        "recurrent layers with softmax inside",
        "only functions of one value",
        of("rows", layers.LSTM(2, activation="softmax")),
    )
    yield (
        "RNN of stacked cells",
        "cell 'StackedRNNCells' is not supported",
        of("rows", layers.RNN(layers.StackedRNNCells([layers.GRUCell(2), layers.GRUCell(2)]))),
    )
    yield (
        "Bidirectional, initial_state",
        "is called with initial_state=",
        of("rows", lambda x: layers.Bidirectional(layers.GRU(3))(x, initial_state=[x[:, 0], x[:, 1]])),
    )
    yield (
        "TimeDistributed of a model",
        "a model inside is not supported, only a layer",
        of("rows", layers.TimeDistributed(keras.Sequential([layers.Input((3,)), layers.Dense(2)]))),
    )
    yield "other operations, such as ops.sin", "the plain operation Sin which equals no layer", of("vector", ops.sin)
    yield (
        "x / y of two tensors",
        "TrueDivide, of two tensors, which equals no layer",
        of("vector", lambda x: x / (x + 1.0)),
    )
