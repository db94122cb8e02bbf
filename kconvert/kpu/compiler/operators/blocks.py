# ruff: noqa: D103 (a reader is documented by the operations that it is registered for)
"""Blocks of pixels as batches or as channels, and back."""

from __future__ import annotations

from kconvert.kpu.compiler.graph import (
    Pad,
    Reshape,
    Tensor,
    Transpose,
)
from kconvert.kpu.compiler.importer import (
    Importer,
    Operator,
    reads,
)
from kconvert.kpu.compiler.operators.common import arguments, cut, image
from kconvert.kpu.wire import Padding


def to_batches(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Return every block-th row and column as a map of its own: [1, c, h, w] to [bh * bw, c, h / bh, w / bw]."""
    _, c, h, w = x.shape
    bh, bw = block
    parts = Reshape(x, (c * (h // bh), bh, w // bw, bw)).output
    return Reshape(Transpose(parts, (1, 3, 0, 2)).output, (bh * bw, c, h // bh, w // bw)).output


def from_batches(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Undo :func:`to_batches`."""
    _, c, h, w = x.shape
    bh, bw = block
    parts = Reshape(x, (bh, bw, c * h, w)).output
    return Reshape(Transpose(parts, (2, 0, 3, 1)).output, (1, c, h * bh, w * bw)).output


def interleaved(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Return channels (p, q, c) as pixels: [1, bh * bw * c, h, w] to [1, c, h * bh, w * bw]."""
    _, channels, h, w = x.shape
    bh, bw = block
    c = channels // (bh * bw)
    parts = Reshape(x, (bh, bw, c * h, w)).output
    return Reshape(Transpose(parts, (2, 0, 3, 1)).output, (1, c, h * bh, w * bw)).output


@reads("SPACE_TO_BATCH_ND")
def space_to_batch(g: Importer, op: Operator) -> Tensor:
    number, block, amounts = arguments(op, 3)
    x = image(g, op, number)
    sizes = [int(v) for v in g.constant(block, "block").ravel()]
    table = g.constant(amounts, "padding")
    if len(sizes) != 2 or table.shape != (2, 2) or min(sizes) < 1 or table.min() < 0 or table.max() > 4096:
        raise op.refuse(f"blocks of {sizes[:8]} are not supported")
    zero = Padding(0, 0)
    pads = tuple(Padding(int(a), int(b)) for a, b in table)
    x = Pad(x, (zero, zero, *pads)).output
    if x.shape[0] != 1 or x.shape[2] % sizes[0] or x.shape[3] % sizes[1]:
        raise op.refuse(f"{x.shape} cannot be split into blocks of {sizes} (the batch is 1)")
    return to_batches(x, (sizes[0], sizes[1]))


@reads("BATCH_TO_SPACE_ND")
def batch_to_space(g: Importer, op: Operator) -> Tensor:
    number, block, amounts = arguments(op, 3)
    x = image(g, op, number)
    sizes = [int(v) for v in g.constant(block, "block").ravel()]
    table = g.constant(amounts, "crops")
    if len(sizes) != 2 or table.shape != (2, 2) or min(sizes) < 1 or x.shape[0] != sizes[0] * sizes[1]:
        raise op.refuse(f"{x.shape[0]} maps are not one of blocks of {sizes[:8]}")
    y = from_batches(x, (sizes[0], sizes[1]))
    height, width = y.shape[2:]
    (top, bottom), (left, right) = [[int(v) for v in row] for row in table]
    return cut(op, y, [0, top, left, 0], [1, height - bottom, width - right, y.shape[1]], [1] * 4)


@reads("DEPTH_TO_SPACE")
def depth_to_space(g: Importer, op: Operator) -> Tensor:
    """Channels (row in block, column in block, c) become pixels."""
    (number,) = arguments(op, 1)
    x, size = image(g, op, number), op.required("DepthToSpaceOptions").BlockSize()
    if size < 1 or x.shape[0] != 1 or x.shape[1] % (size * size):
        raise op.refuse(f"{x.shape[1]} channels do not make blocks of {size} (the batch is 1)")
    return interleaved(x, (size, size))


@reads("SPACE_TO_DEPTH")
def space_to_depth(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    x, size = image(g, op, number), op.required("SpaceToDepthOptions").BlockSize()
    if size < 1 or x.shape[0] != 1 or x.shape[2] % size or x.shape[3] % size:
        raise op.refuse(f"maps of {x.shape[2:]} cannot be split into blocks of {size} (the batch is 1)")
    _, c, h, w = x.shape
    return Reshape(to_batches(x, (size, size)), (1, size * size * c, h // size, w // size)).output
