"""Layers that multiply: Dot, EinsumDense; and Embedding, whose matrix is a table."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from kconvert.converters.registry import Block, activation, fits, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Contraction, Dense, Embedding, Node, Reshape, Value
from kconvert.layers.moves import Permute


@reads("Dot")
def dot(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Sum of products over one axis of each tensor."""
    only(layer, "normalize", False)
    if len(inputs) != 2:
        raise ModelError(f"layer {layer.name!r} (Dot): reads {len(inputs)} tensors, expected 2")
    axes = layer.config["axes"]
    pair = list(axes) if isinstance(axes, (list, tuple)) else [axes, axes]
    letters = iter(string.ascii_lowercase)
    terms = [[next(letters) for _ in value.shape] for value in inputs]
    for term, axis, value in zip(terms, pair, inputs, strict=True):
        place = int(axis) - 1 if axis > 0 else int(axis) + len(value.shape)
        if not 0 <= place < len(value.shape):
            raise UnsupportedLayerError(
                f"layer {layer.name!r} (Dot): axes={axes!r} is not supported over {value.shape}"
            )
        term[place] = "k"
    first, second = ("".join(term) for term in terms)
    equation = f"{first},{second}->{(first + second).replace('k', '')}"
    return Contraction(name=layer.name, equation=equation)


@reads("Embedding")
def embedding(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A row of the matrix for each number."""
    only(layer, "mask_zero", False)
    (rows,) = weights(layer, 1)
    fits(layer, "embeddings", rows, int(layer.config["input_dim"]), int(layer.config["output_dim"]))
    return Embedding(name=layer.name, weight=rows)


# ***** EinsumDense *****


@reads("EinsumDense")
def einsum_dense(layer: LayerSpec, inputs: list[Value]) -> Block:
    """A matrix product: every axis of the kernel is either summed over or new.

    The input's axes are brought into the order [others, summed], where they are not, and the output's from [others,
    new] into theirs.
    """
    x, kernel, y = _terms(layer, len(inputs[0].shape) + 1)
    summed = [n for n in x if n in kernel and n not in y]
    new = [n for n in y if n in kernel and n not in x]
    others = [n for n in x if n not in kernel]
    if sorted([*summed, *new]) != sorted(kernel) or sorted([*others, *new]) != sorted(y) or y[0] != x[0]:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (EinsumDense): equation {layer.config['equation']!r} is no matrix product of the "
            f"last axes, such as 'abc,cd->abd'"
        )
    bias_axes = layer.config.get("bias_axes")
    arrays = weights(layer, 2 if bias_axes else 1)
    matrix = arrays[0].transpose([kernel.index(n) for n in [*summed, *new]])
    sizes = dict(zip(kernel, arrays[0].shape, strict=True))
    fan_in, fan_out = (int(np.prod([sizes[n] for n in part], dtype=int)) for part in (summed, new))
    bias = _bias(layer, arrays[1], bias_axes, new, y, sizes) if bias_axes else np.zeros(fan_out)

    dense = Dense(
        name=layer.name,
        layer=layer.name,
        weight=matrix.reshape(fan_in, fan_out),
        bias=bias,
        activation=activation(layer),
    )
    block, (value,) = Block(), inputs
    value = _permuted(block, f"{layer.name}_axes", value, x[1:], [*others[1:], *summed])
    outer = value.shape[: len(others) - 1]
    value = _shaped(block, f"{layer.name}_rows", value, (*outer, fan_in))
    value = block.add(dense, value)
    value = _shaped(block, f"{layer.name}_shape", value, (*outer, *(sizes[n] for n in new)) or (1,))
    value = _permuted(block, f"{layer.name}_order", value, [*others[1:], *new], y[1:])
    block.outputs = (value,)
    return block


def _terms(layer: LayerSpec, rank: int) -> tuple[str, str, str]:
    """Return the letters of input, kernel and output, that of the batch first; an ellipsis becomes capital letters."""
    inputs, arrow, y = layer.config["equation"].replace(" ", "").partition("->")
    x, comma, kernel = inputs.partition(",")
    if not (arrow and comma):
        raise ModelError(f"layer {layer.name!r} (EinsumDense): {layer.config['equation']!r} is not an equation")
    left_out = string.ascii_uppercase[: rank - len(x.replace("...", ""))]
    x, kernel, y = (term.replace("...", left_out) for term in (x, kernel, y))
    if len(x) != rank:
        raise ModelError(
            f"layer {layer.name!r} (EinsumDense): equation {layer.config['equation']!r} is not for a tensor of "
            f"{rank} axes"
        )
    return x, kernel, y


def _bias(
    layer: LayerSpec, bias: np.ndarray, axes: str, new: Sequence[str], y: str, sizes: dict[str, int]
) -> np.ndarray:
    """Return one number for each new element; `bias` has the output's axes from the first that it belongs to on."""
    if any(n not in new for n in axes):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (EinsumDense): bias_axes={axes!r} is not supported, only axes of the kernel"
        )
    own = [n for n in y if n in axes]
    values = bias.reshape([sizes[n] for n in own])
    letters = "".join(own)
    order = "".join(n for n in new if n in own)
    values = np.einsum(f"{letters}->{order}", values)
    shape = [sizes[n] if n in own else 1 for n in new]
    return np.broadcast_to(values.reshape(shape), [sizes[n] for n in new]).reshape(-1)


def _permuted(block: Block, name: str, value: Value, axes: Sequence[str], wanted: Sequence[str]) -> Value:
    if list(axes) == list(wanted):
        return value
    return block.add(Permute(name=name, axes=tuple(list(axes).index(n) for n in wanted)), value)


def _shaped(block: Block, name: str, value: Value, shape: tuple[int, ...]) -> Value:
    return value if value.shape == shape else block.add(Reshape(name=name, shape=shape), value)
