"""What the readers share: inputs, paddings, axes, views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.functions import Expr
from kconvert.kpu.compiler.graph import (
    Function,
    Reshape,
    Slice,
    Tensor,
)
from kconvert.kpu.compiler.importer import (
    AXIS_NCHW,
    MAX_RANK,
    Importer,
    Operator,
    Shape,
    to_file_order,
    to_graph_order,
)

Array = npt.NDArray[Any]

_ACTIVATIONS: dict[int, Expr | None] = {
    0: None,
    1: fn.RELU,
    2: fn.RELU_N1_TO_1,
    3: fn.RELU6,
    4: fn.tanh(),
}


def activated(op: Operator, x: Tensor, code: int) -> Tensor:
    """Return x with a fused activation behind it."""
    if code not in _ACTIVATIONS:
        raise op.refuse(f"its fused activation {code} is none of relu, relu6, relu_n1_to_1, tanh")
    expr = _ACTIVATIONS[code]
    return x if expr is None else Function(x, expr).output


def arguments(op: Operator, least: int, most: int | None = None) -> list[int]:
    """Return the numbers of its inputs, padded with -1 to `most`."""
    most = most or least
    if not least <= len(op.inputs) <= most or any(n < 0 for n in op.inputs[:least]):
        raise op.refuse(f"it has {len(op.inputs)} inputs instead of {least}")
    return op.inputs + [-1] * (most - len(op.inputs))


def image(g: Importer, op: Operator, number: int) -> Tensor:
    """Return an input of four dimensions."""
    x = g.tensor(number)
    if len(x.shape) != MAX_RANK:
        raise op.refuse(f"its input has the shape {x.shape} and needs four dimensions")
    return x


def axes_of(g: Importer, op: Operator, number: int, rank: int) -> list[int]:
    """Return axes in the order of the file, sorted, none negative."""
    axes = [int(a) for a in np.atleast_1d(g.constant(number, "axes")).ravel()]
    if any(not -rank <= a < rank for a in axes) or not axes:
        raise op.refuse(f"axes {axes[:8]} do not fit {rank} dimensions")
    return sorted({a % rank for a in axes})


def graph_axis(axis: int, rank: int) -> int:
    """Return where an axis of the file is in the graph."""
    return AXIS_NCHW[axis] if rank == MAX_RANK else axis


def cut(op: Operator, x: Tensor, begin: list[int], end: list[int], strides: list[int]) -> Tensor:
    """Return a slice given in the order of the file."""
    rank = len(x.shape)
    order = [0, 3, 1, 2] if rank == MAX_RANK else range(rank)
    b, e, s = (tuple(v[i] for i in order) for v in (begin, end, strides))
    if any(not 0 <= lo < hi <= size or step < 1 for lo, hi, step, size in zip(b, e, s, x.shape, strict=True)):
        raise op.refuse(f"from {begin} to {end} with steps of {strides} is no part of its input (steps are positive)")
    return Slice(x, b, e, s).output


def viewed(g: Importer, op: Operator, number: int, shape: Shape) -> Tensor | Array:
    """Return a tensor with another shape, in the order of the file."""
    if math.prod(shape) != math.prod(g.shape(number)) or any(s < 1 for s in shape):
        raise op.refuse(f"{g.shape(number)} cannot become {shape}")
    if g.is_constant(number):
        return g.constant(number).reshape(shape)
    if len(shape) > MAX_RANK:
        raise op.refuse(f"its result has {len(shape)} dimensions; the kmodel format has {MAX_RANK}")
    return to_graph_order(Reshape(to_file_order(g.tensor(number)), shape).output)
