"""Samples as the user has them, and as the device has them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError
from kconvert.kpu.nodes import Concat, MatMul, Node, QuantizedMatMul
from kconvert.kpu.wire import DataType, MemoryRange

if TYPE_CHECKING:
    from kconvert.kpu.kmodel import Input, KModel, Layout

Array = npt.NDArray[Any]
Place = tuple[int, int]  # memory and start


def to_nhwc(maps: Array) -> Array:
    """Return maps [..., channels, height, width] as [..., height, width, channels].

    The device's outputs are the former, Keras' the latter. For one flat output of the device, which MicroPython hands
    out as a tuple: ``to_nhwc(numpy.reshape(output, (channels, height, width)))``.

    Raises:
        InputError: there are fewer than three dimensions.
    """
    return np.moveaxis(_maps(maps), -3, -1)


def to_nchw(maps: Array) -> Array:
    """Return maps [..., height, width, channels] as [..., channels, height, width].

    Raises:
        InputError: there are fewer than three dimensions.
    """
    return np.moveaxis(_maps(maps), -1, -3)


def _maps(maps: Array) -> Array:
    array = np.asarray(maps)
    if array.ndim < 3:
        raise InputError(f"shape {array.shape} has no height, width and channels")
    return array


# ***** inputs *****


def from_samples(model: KModel, X: Array | list[Array], layout: Layout) -> list[Array]:
    """Return the inputs as the device has them: for each a C-contiguous array [n, ...] of its type, in NCHW.

    Raises:
        InputError: the samples do not fit.
    """
    if layout not in ("nchw", "nhwc"):
        raise InputError(f"layout={layout!r} is neither 'nchw' nor 'nhwc'")
    count = len(model.inputs)
    listed = isinstance(X, list | tuple) and (count != 1 or (len(X) == 1 and np.ndim(X[0]) > 1))
    given: Any = X if listed else [X]
    if len(given) != count:
        raise InputError(f"the model has {count} inputs, got {len(given)}")
    arrays = [_samples(i, port, x, layout) for i, (port, x) in enumerate(zip(model.inputs, given, strict=True))]
    if len({len(a) for a in arrays}) > 1:
        raise InputError(f"the inputs have different numbers of samples: {[len(a) for a in arrays]}")
    return arrays


def _samples(index: int, port: Input, given: Any, layout: Layout) -> Array:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {index}: cannot make an array of a {type(given).__name__}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"input {index}: dtype {array.dtype} is not real numbers")
    shape = _sample_shape(port.shape)
    if layout == "nhwc" and len(shape) >= 3:
        shape = (*shape[:-3], *shape[-2:], shape[-3])
    # A vector, or samples of fewer dimensions: those in front that the file adds are 1, and no layout concerns them.
    short = tuple(itertools.dropwhile(lambda s: s == 1, port.shape))
    plain = (math.prod(port.shape),) if _is_vector(port.shape) else short
    flat = 0 < array.ndim < 4 and array.shape[1:] == plain
    if array.ndim == 0 or not (flat or array.shape[1:] == shape):
        expected = ", ".join(map(str, ("n", *shape)))
        raise InputError(f"input {index}: expected shape ({expected}) for layout {layout!r}, got {array.shape}")
    if layout == "nhwc" and not flat and len(shape) >= 3:
        array = to_nchw(array)
    if port.range.datatype is DataType.UINT8:
        array = _pixels(index, array)
    return np.ascontiguousarray(array, dtype=port.range.datatype.dtype)


def _pixels(index: int, array: Array) -> Array:
    """Check that the numbers are whole and fit uint8."""
    if array.dtype == np.uint8 or array.dtype.kind == "b" or not array.size:
        return array
    if array.dtype.kind == "f" or array.min() < 0 or array.max() > 255:
        raise InputError(
            f"input {index} takes uint8, pixels from 0 to 255 as integers: got {array.dtype} from {array.min()} to "
            f"{array.max()}"
        )
    return array


def _sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what one run of the model takes or gives; a model compiled for a batch keeps that dimension."""
    return shape[1:] if shape[0] == 1 else shape


def _is_vector(shape: tuple[int, ...]) -> bool:
    return sum(s > 1 for s in shape) <= 1


# ***** outputs *****


def to_samples(model: KModel, outputs: list[Array], shapes: list[tuple[int, ...]], layout: Layout) -> list[Array]:
    """Return the outputs [n, bytes] in their types and shapes; vectors as [n, elements]."""
    found = []
    for raw, where, shape in zip(outputs, model.outputs, shapes, strict=True):
        array = raw.view(where.datatype.dtype)
        if not _is_vector(shape):
            array = array.reshape(len(raw), *_sample_shape(shape))
            if layout == "nhwc" and array.ndim >= 4:
                array = np.ascontiguousarray(to_nhwc(array))
        found.append(array)
    return found


def output_shapes(model: KModel) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs, which the file does not have: those of what the nodes write there.

    Where they cannot be told, an output has one dimension.
    """
    known: dict[Place, tuple[int, ...]] = {_place(port.range): port.shape for port in model.inputs}
    for node in model.nodes:
        for tensor in node.writes():
            known[_place(tensor.range)] = _written_shape(node, tensor.shape, known)
    shapes = []
    for where in model.outputs:
        elements = where.size // where.datatype.itemsize
        shape = known.get(_place(where), ())
        shapes.append(shape if math.prod(shape) == elements else (elements,))
    return shapes


def _place(where: MemoryRange) -> Place:
    return where.memory, where.start


def _written_shape(node: Node, shape: tuple[int, ...], known: dict[Place, tuple[int, ...]]) -> tuple[int, ...]:
    if isinstance(node, Concat):
        return _concat_shape(node, known) or shape
    if len(shape) == 4 or isinstance(node, MatMul | QuantizedMatMul):
        return shape
    source = known.get(_place(node.reads()[0].range), ()) if node.reads() else ()
    return source if math.prod(source) == math.prod(shape) else shape


def _concat_shape(node: Concat, known: dict[Place, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Find the axis along which the inputs are joined, from the extents before and behind it."""
    shapes = [known.get(_place(where), ()) for where in node.inputs]
    inner, dims = node.inner // node.out.datatype.itemsize, [int(d) for d in node.dims]
    for axis in (1, 2, 3, 0):  # by channels, if more than one would do
        if all(
            len(s) == 4 and (math.prod(s[:axis]), s[axis], math.prod(s[axis + 1 :])) == (node.outer, dim, inner)
            for s, dim in zip(shapes, dims, strict=True)
        ):
            return (*shapes[0][:axis], sum(dims), *shapes[0][axis + 1 :])
    return None
