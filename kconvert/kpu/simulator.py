"""Run a kmodel: make a program of numbers of its records, and have it run by compiled kernels.

The kernels (``native/``) are compiled once for every machine; they do not depend on the model.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.csim.compiler import compile_object
from kconvert.errors import CompileError, InputError, KModelError
from kconvert.kpu import nnil
from kconvert.kpu import nodes as n
from kconvert.kpu.layout import from_samples, output_shapes, to_samples
from kconvert.kpu.summary import kpu_memory
from kconvert.kpu.verify import verify
from kconvert.kpu.wire import Memory, MemoryRange, Scalar

if TYPE_CHECKING:
    from kconvert.kpu.kmodel import KModel, Layout

Array = npt.NDArray[Any]

# In the order of native/simulator.cpp: kernels.
KERNELS = (
    *(n.Binary, n.QuantizedBinary, n.Quantize, n.Dequantize, n.Unary, n.NNILUnary, n.TableLookup1D),
    *(n.Conv2D, n.QuantizedConv2D, n.Conv2DTranspose, n.MatMul, n.QuantizedMatMul, n.Concat, n.MemoryCopy),
    *(n.Pad, n.Transpose, n.StridedSlice, n.ResizeImage, n.Reduce, n.ReduceWindow2D, n.Softmax),
    *(n.KpuUpload, n.KpuConv2D),
)
ANY_TYPE = (n.Pad, n.Transpose, n.StridedSlice, n.ResizeImage)  # their kernels are told the size of an element
BLOCK = 4  # output channels that are computed together; tile.h: block


class Simulator:
    """A checked model, ready to run."""

    def __init__(self, model: KModel) -> None:
        """Check and prepare `model`.

        Raises:
            KModelError: the model cannot be run.
            CompileError: there is no C++ compiler.
        """
        model = type(model).load(
            model.to_bytes()
        )  # values that fit their fields, arrays of the types that kernels read
        verify(model)
        self._model = model
        self._shapes = output_shapes(model)
        program = _Program()
        for node in model.nodes:
            program.add(node)
        self._program = np.array(program.numbers, dtype=np.int64)
        self._kept = [*program.kept, np.frombuffer(model.constants + bytes(8), np.uint8)]
        self._ports = np.array([*map(_input_port, model.inputs), *map(_output_port, model.outputs)], dtype=np.int64)
        self._kpu_bytes = kpu_memory(model)
        self._run = _kernels()

    def run(self, X: Array | list[Array], layout: Layout, threads: int | None) -> list[Array]:
        """See :meth:`KModel.infer`."""
        inputs = from_samples(self._model, X, layout)
        samples = len(inputs[0]) if inputs else 1
        outputs = [np.empty((samples, where.size), np.uint8) for where in self._model.outputs]
        data = [*inputs, *outputs]
        pointers = (ctypes.c_void_p * len(data))(*(a.ctypes.data for a in data))
        workers = min(_threads(threads), samples)
        bounds = [samples * i // workers for i in range(workers + 1)] if workers else [0]
        pieces = list(itertools.pairwise(bounds))
        if len(pieces) <= 1:
            failed = [self._piece(pointers, *piece) for piece in pieces]
        else:
            with ThreadPoolExecutor(workers) as pool:
                failed = list(pool.map(lambda piece: self._piece(pointers, *piece), pieces))
        if any(failed):
            raise KModelError(f"there is not enough memory to run the model in {workers} threads")
        return to_samples(self._model, outputs, self._shapes, layout)

    def _piece(self, pointers: Any, first: int, last: int) -> int:
        """Compute samples `first` to `last` - 1; ctypes lets other threads run meanwhile."""
        model = self._model
        status: int = self._run(
            self._program.ctypes.data,
            len(model.nodes),
            self._kept[-1].ctypes.data,
            model.main_memory,
            self._kpu_bytes,
            self._ports.ctypes.data,
            len(model.inputs),
            len(model.outputs),
            pointers,
            first,
            last,
        )
        return status


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < 1:
        raise InputError(f"threads={wanted!r} is not a positive integer")
    return int(wanted)


def _input_port(port: Any) -> tuple[int, ...]:
    in_kpu = port.range.memory is Memory.KPU
    size = int(np.prod(port.shape)) * port.range.datatype.itemsize
    return (port.range.memory, port.range.start, size, int(in_kpu), *port.shape)


def _output_port(where: MemoryRange) -> tuple[int, ...]:
    return (where.memory, where.start, where.size, 0, 0, 0, 0, 0)


# ***** the program *****


class _Program:
    """Numbers that the kernels read: for each node its kernel, how many there are, and its fields in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.kept: list[Array] = []  # arrays that the program points to

    def add(self, node: n.Node) -> None:
        """Append a node."""
        start = len(self.numbers)
        self.numbers += [KERNELS.index(type(node)), 0]
        if isinstance(node, n.KpuConv2D):
            self._kpu_conv2d(node)
        else:
            if isinstance(node, ANY_TYPE):
                self.numbers.append(node.source.datatype.itemsize)
            for field in dataclasses.fields(node):
                self._put(_prepared(node, field.name))
        self.numbers[start + 1] = len(self.numbers) - start

    def _put(self, value: Any) -> None:
        """Append a value; numbers of floating point by their bits, arrays by their address."""
        if isinstance(value, MemoryRange):
            self.numbers += [value.memory, value.start, value.size]
        elif isinstance(value, Scalar):
            self.numbers += struct.unpack("<I", value.raw)
        elif isinstance(value, tuple):
            for part in value:
                self._put(part)
        elif isinstance(value, np.ndarray):
            self.kept.append(np.ascontiguousarray(value))
            self.numbers.append(self.kept[-1].ctypes.data)
        elif isinstance(value, float):
            self.numbers += struct.unpack("<q", struct.pack("<d", value))
        else:
            self.numbers.append(int(value))

    def _kpu_conv2d(self, node: n.KpuConv2D) -> None:
        registers, norm, lines = node.registers, node.norm, node.activation
        channels, out_channels = registers.in_shape[0], registers.out_shape[0]
        depthwise = bool(registers.depth_wise_layer)
        weights = node.weights.reshape(out_channels, -1).astype(np.int64)
        constant = _wrapped_sum(registers.arg_w, registers.shr_w, weights)
        constant += registers.arg_add * (1 if depthwise else channels)
        # The sum of x is that of x times 1: part of the weights, where that keeps the float sums exact.
        moved = weights + registers.arg_x
        folds = registers.shr_x == 0 and bool(np.abs(moved).max() <= 255)
        groups = channels if depthwise else 1
        self._put(node.main_output)
        self._put(node.batches)
        self._put(node.reads()[0].range)
        self._put(node.writes()[0].range)
        self._put((*registers.in_shape, *registers.out_shape, registers.kernel, registers.pool, registers.pad_value))
        self._put((int(not folds), registers.arg_x, registers.shr_x, groups, out_channels // groups, weights.shape[1]))
        self._put(_packed(moved if folds else weights, groups))
        for table in (constant, norm.mul, norm.add, norm.shift, lines.start, lines.mul, lines.shift, lines.bias):
            self._put(table.astype(np.int64))


def _wrapped_sum(arg: int, shift: int, weights: Array) -> Array:
    """(arg * sum of the weights) >> shift for each output channel, int64."""
    found: Array = (arg * weights.sum(axis=1)) >> shift
    return found


def _prepared(node: n.Node, name: str) -> Any:
    """Return a field as the kernels want it."""
    value = getattr(node, name)
    if isinstance(node, n.Conv2D | n.QuantizedConv2D) and name == "weights":
        flat = value.reshape(node.out_channels, -1).astype(np.float32)
        return _packed(flat + np.float32(node.w_offset) if isinstance(node, n.QuantizedConv2D) else flat, node.groups)
    if isinstance(node, n.NNILUnary) and name == "code":
        code = nnil.decode(value)
        pairs = np.array([(i.op, struct.unpack("<q", struct.pack("<d", i.value))[0]) for i in code], dtype=np.int64)
        return (len(code), pairs.reshape(-1, 2))
    return value


def _packed(weights: Array, groups: int) -> Array:
    """Order weights [out, taps] as [group, block of output channels, tap, channel of the block], float32."""
    out, taps = weights.shape
    per_group = out // groups
    width = 1 if per_group == 1 else BLOCK
    blocks = -(-per_group // width)
    full = np.zeros((groups, blocks * width, taps), np.float32)
    full[:, :per_group] = weights.reshape(groups, per_group, taps)
    return np.ascontiguousarray(full.reshape(groups, blocks, width, taps).transpose(0, 1, 3, 2))


# ***** the kernels *****


@functools.cache
def _kernels() -> Any:
    """Compile the kernels, or find them in the cache, and return their entry."""
    folder = resources.files("kconvert.kpu") / "native"
    sources = {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith((".cpp", ".h"))}
    path = compile_object(sources, "simulator.cpp")
    try:
        run = ctypes.CDLL(str(path)).kconvert_kpu_run
    except (OSError, AttributeError):  # a damaged object: make it anew
        path.unlink(missing_ok=True)
        try:
            run = ctypes.CDLL(str(compile_object(sources, "simulator.cpp"))).kconvert_kpu_run
        except OSError as error:
            raise CompileError(f"the compiled object cannot be loaded: {error}") from error
    run.restype = ctypes.c_int
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    run.argtypes = [pointer, number, pointer, number, number, pointer, number, number, pointer, number, number]
    return run
