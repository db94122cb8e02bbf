"""Scaling maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler.graph import (
    MatMul,
    Reshape,
    Resize,
    Tensor,
    Transpose,
    constant,
)
from kconvert.kpu.compiler.importer import (
    MAX_ELEMENTS,
    Importer,
    Operator,
    reads,
)
from kconvert.kpu.compiler.operators.common import arguments, image
from kconvert.kpu.nodes import ResizeMode

Array = npt.NDArray[Any]


@reads("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR")
def resize(g: Importer, op: Operator) -> Tensor:
    """The runtime has corners aligned or not, no half-pixel centres; the rest is a product with constant weights."""
    number, wanted = arguments(op, 2)
    x = image(g, op, number)
    nearest = op.name == "RESIZE_NEAREST_NEIGHBOR"
    options = op.options("ResizeNearestNeighborOptions" if nearest else "ResizeBilinearOptions")
    size = [int(v) for v in g.constant(wanted, "size").ravel()]
    if len(size) != 2 or min(size) < 1 or x.shape[0] * x.shape[1] * size[0] * size[1] > MAX_ELEMENTS:
        raise op.refuse(f"it cannot make maps of {size[:8]} pixels")
    align = bool(options.AlignCorners()) if options is not None else False
    half = bool(options.HalfPixelCenters()) if options is not None else False
    grows = all(want % have == 0 for have, want in zip(x.shape[2:], size, strict=True))
    target = (size[0], size[1])
    if nearest and ((not align and not half) or (half and not align and grows)):
        return Resize(x, target, ResizeMode.NEAREST).output
    if not nearest and not half:
        return Resize(x, target, ResizeMode.BILINEAR, align).output
    n, c, h, w = x.shape
    g.fits(op, w * target[1], h * target[0], n * c * h * target[1])
    return _resize_by_products(x, target, nearest, align, half)


def _resize_by_products(x: Tensor, size: tuple[int, int], nearest: bool, align: bool, half: bool) -> Tensor:
    """Return x scaled along each direction by a product with a matrix that holds the weights."""
    n, c, h, w = x.shape
    across = resize_matrix(w, size[1], nearest, align, half)
    rows = MatMul(Reshape(x, (n * c * h, w)).output, constant("columns of resize", across), _zeros(size[1])).output
    turned = Transpose(Reshape(rows, (1, n * c, h, size[1])).output, (0, 1, 3, 2)).output
    down = resize_matrix(h, size[0], nearest, align, half)
    flat = Reshape(turned, (n * c * size[1], h)).output
    columns = MatMul(flat, constant("rows of resize", down), _zeros(size[0])).output
    upright = Transpose(Reshape(columns, (1, n * c, size[1], size[0])).output, (0, 1, 3, 2)).output
    return Reshape(upright, (n, c, *size)).output


def _zeros(count: int) -> Array:
    return np.zeros(count, np.float32)


def resize_matrix(have: int, want: int, nearest: bool, align: bool, half: bool) -> Array:
    """Return [have, want]: how much each of `have` pixels counts for each of `want`, as TFLite computes it."""
    scale = np.float32((have - 1) / (want - 1)) if align and want > 1 else np.float32(have / want)
    offset = np.float32(0.5 if half else 0)
    place = (np.arange(want, dtype=np.float32) + offset) * scale - (0 if nearest else offset)
    matrix = np.zeros((have, want), np.float32)
    at = np.arange(want)
    if nearest:
        index = np.floor(place + np.float32(0.5)) if align else np.floor(place)
        matrix[np.clip(index, 0, have - 1).astype(int), at] = 1
        return matrix
    place = np.maximum(place, 0) if half else place
    low = np.clip(np.floor(place), 0, have - 1).astype(int)
    high = np.minimum(low + 1, have - 1)
    part = (place - low).astype(np.float32)
    np.add.at(matrix, (low, at), 1 - part)
    np.add.at(matrix, (high, at), part)
    return matrix
