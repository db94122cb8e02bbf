"""The fast simulation of LUT networks: 512 samples in a register, one bit of each."""

from __future__ import annotations

import ctypes
import functools
import os
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.csim.compiler import compile_object
from kconvert.errors import CompileError, InputError
from kconvert.model import HLSModel

from .verilog import Design, Stage, design

Words = npt.NDArray[np.uint64]


class _Network(ctypes.Structure):
    _fields_ = (
        ("inputs", ctypes.c_long),
        ("layers", ctypes.c_long),
        ("units", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("wires", ctypes.c_void_p),
        ("groups", ctypes.c_long),
        ("members", ctypes.c_void_p),
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
        self._run = _native()
        last = stages[-1].node.units
        members = np.zeros((len(groups), last), bool)
        for row, group in zip(members, groups, strict=True):
            row[group] = True
        self._arrays = (
            np.array([stage.node.units for stage in stages], np.int64),
            np.concatenate([_six_inputs(stage)[0] for stage in stages]),
            np.ascontiguousarray(np.concatenate([_six_inputs(stage)[1] for stage in stages])),
            pack(members),
        )
        units, tables, wires, masks = (array.ctypes.data for array in self._arrays)
        self._network = _Network(self.design.source.size, len(stages), units, tables, wires, len(groups), masks)

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
        words = self._packed(np.asarray(bits))
        last, groups = self.design.stages[-1].node.units, len(self.design.groups)
        made = np.empty((len(words), groups), np.uint32)
        answers = np.empty((0 if groups else len(words), -(-last // 64)), np.uint64)
        pointers = (words.ctypes.data, len(words), answers.ctypes.data, made.ctypes.data)
        if self._run(ctypes.byref(self._network), *pointers, _threads(threads)):
            raise MemoryError(f"no memory for planes of {last} bits")
        return made if groups else unpack(answers, last)

    def _packed(self, bits: npt.NDArray[Any]) -> Words:
        size = self.design.source.size
        if bits.dtype == np.uint64 and bits.ndim == 2 and bits.shape[1] == -(-size // 64):
            return np.ascontiguousarray(bits)
        if bits.dtype != np.bool_ or bits.shape[1:] not in ((size,), self.design.source.shape):
            raise InputError(
                f"expected bool [n, {size}] or uint64 [n, {-(-size // 64)}] as pack() makes them, received "
                f"{bits.dtype} {list(bits.shape)}"
            )
        return pack(bits.reshape(len(bits), size))


def pack(bits: npt.NDArray[np.bool_]) -> Words:
    """Return bits [n, size] as uint64 [n, words]: bit i of a row is bit ``i % 64`` of word ``i // 64``."""
    padded = np.zeros((len(bits), -(-bits.shape[1] // 64) * 8), np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    padded[:, : packed.shape[1]] = packed
    return np.asarray(padded.view("<u8").astype(np.uint64, copy=False))


def unpack(words: Words, size: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [n, size], the bits of rows that :func:`pack` made."""
    return np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), axis=1, count=size, bitorder="little")


def _six_inputs(stage: Stage) -> tuple[Words, npt.NDArray[np.uint32]]:
    """Return the tables and wires of a layer with unused inputs added: whatever those are, the answer is the same."""
    tables, wires = stage.node.tables, stage.wires.astype(np.uint32)
    for inputs in range(stage.node.fan_in, 6):
        tables = tables | tables << np.uint64(1 << inputs)
        wires = np.concatenate([wires, wires[:, :1]], axis=1)
    return tables, wires


@functools.cache
def _native() -> Any:
    """Return the C++ function, compiled and loaded."""
    name = "bitsliced.cpp"
    source = (resources.files(__package__) / "native" / name).read_text(encoding="utf-8")
    path = compile_object({name: source}, name)
    try:
        run = ctypes.CDLL(str(path)).lutnet_run
    except OSError as error:
        raise CompileError(f"the compiled object cannot be loaded: {error}") from error
    run.restype = ctypes.c_int
    run.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return run


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(f"threads={wanted!r} is not a positive integer")
    return wanted
