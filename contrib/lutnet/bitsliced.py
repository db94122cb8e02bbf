"""The fast simulation of LUT networks: 512 samples in a register, one bit of each."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.csim.compiler import compile_object
from kconvert.errors import CompileError, InputError
from kconvert.model import HLSModel

from .verilog import Design, design

Words = npt.NDArray[np.uint64]


class _Layer(ctypes.Structure):
    _fields_ = (
        ("units", ctypes.c_long),
        ("inputs", ctypes.c_int),
        ("tables", ctypes.c_void_p),
        ("wires", ctypes.c_void_p),
    )


class BitSliced:
    """The LUT layers of a converted model on packed bits, with the counters behind them if it sums what they make.

    It answers as :meth:`~kconvert.HLSModel.predict` does, to the bit, and much faster: samples are bits here, not
    floats, and a table is some logic operations for 512 samples. Nothing is compiled for a network; its tables and
    wires are data.

    Raises:
        GraphError: the model has no LUT layers, or they are not one chain.
        CompileError: there is no C++ compiler.
    """

    def __init__(self, model: HLSModel) -> None:
        self.design: Design = design(model)
        stages, groups = self.design.stages, self.design.groups
        native = _native()
        self._run = native.lutnet_run
        members = np.zeros((len(groups), stages[-1].node.units), bool)
        for row, group in zip(members, groups, strict=True):
            row[group] = True
        # the object refers to these arrays
        self._arrays = [(np.ascontiguousarray(stage.node.tables), stage.wires.astype(np.uint32)) for stage in stages]
        self._members = pack(members)
        layers = (_Layer * len(stages))(
            *(_Layer(*w.shape, t.ctypes.data, w.ctypes.data) for t, w in self._arrays),
        )
        self._network = native.lutnet_new(
            self.design.source.size, len(stages), layers, len(groups), self._members.ctypes.data
        )
        if not self._network:
            raise MemoryError("no memory for a network of look-up tables")
        weakref.finalize(self, native.lutnet_delete, self._network)

    def predict(self, bits: npt.ArrayLike, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Return what :meth:`~kconvert.HLSModel.predict` answers, float64 [n, ...].

        Args:
            bits: bool [n, ...], what the first LUT layer reads: for an image, ``x > 0.5`` where the model starts with
                ``Binarize(0.5)``; or packed, as :meth:`counts` takes them.
            threads: How many threads share the batch; all cores by default.
        """
        counts = self.counts(bits, threads=threads)
        return self.design.values(counts).reshape(len(counts), *self.design.result.shape)

    def counts(self, bits: npt.ArrayLike, *, threads: int | None = None) -> npt.NDArray[Any]:
        """Return whole numbers: the ones in each group, uint32 [n, groups], or the bits of the last layer, [n, units].

        Args:
            bits: bool [n, ...] as for :meth:`predict`; or uint64 [n, words] as :func:`pack` makes them: quicker.
            threads: How many threads share the batch; all cores by default.

        Raises:
            InputError: the shape or dtype does not fit.
        """
        samples = self._checked(np.asarray(bits))
        last, groups = self.design.stages[-1].node.units, len(self.design.groups)
        made = np.empty((len(samples), groups), np.uint32)
        answers = np.empty((0 if groups else len(samples), -(-last // 64)), np.uint64)
        given = (None, samples.ctypes.data) if samples.dtype == np.bool_ else (samples.ctypes.data, None)
        pointers = (*given, len(samples), answers.ctypes.data, made.ctypes.data)
        if self._run(self._network, *pointers, _threads(threads)):
            raise MemoryError(f"no memory for planes of {last} bits")
        return made if groups else unpack(answers, last)

    def _checked(self, bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = self.design.source.size
        packed = bits.dtype == np.uint64 and bits.ndim == 2 and bits.shape[1] == -(-size // 64)
        if not packed and (bits.dtype != np.bool_ or bits.shape[1:] not in ((size,), self.design.source.shape)):
            raise InputError(
                f"expected bool [n, {size}] or uint64 [n, {-(-size // 64)}] as pack() makes them, received "
                f"{bits.dtype} {list(bits.shape)}"
            )
        return np.ascontiguousarray(bits)


def pack(bits: npt.NDArray[np.bool_]) -> Words:
    """Return bits [n, size] as uint64 [n, words]: bit i of a row is bit ``i % 64`` of word ``i // 64``."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 64) * 8), np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    padded[:, : packed.shape[1]] = packed
    return np.asarray(padded.view("<u8").astype(np.uint64, copy=False))


def unpack(words: Words, size: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [n, size], the bits of rows that :func:`pack` made."""
    return np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), axis=1, count=size, bitorder="little")


@functools.cache
def _native() -> Any:
    """Return the C++ functions, compiled and loaded; the kernel is the one that csim has."""
    folder = resources.files(__package__)
    files = (folder / "native" / "bitsliced.cpp", folder / "templates" / "kernels" / "nnet_lut_planes.h")
    path = compile_object({file.name: file.read_text(encoding="utf-8") for file in files}, files[0].name)
    try:
        native = ctypes.CDLL(str(path))
    except OSError as error:
        raise CompileError(f"the compiled object cannot be loaded: {error}") from error
    native.lutnet_new.restype = ctypes.c_void_p
    native.lutnet_new.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p]
    native.lutnet_delete.restype = None
    native.lutnet_delete.argtypes = [ctypes.c_void_p]
    native.lutnet_run.restype = ctypes.c_int
    native.lutnet_run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return native


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(f"threads={wanted!r} is not a positive integer")
    return wanted
