"""A loaded firmware: numpy in, numpy out."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import shutil
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.csim.compiler import cache_folder, compile_object
from kconvert.errors import CompileError, InputError, PrecisionWarning, StreamError
from kconvert.firmware import Firmware, storage_of
from kconvert.inputs import input_arrays
from kconvert.layers import Value
from kconvert.streams import Stream, StreamFirmware, firmware_of

if TYPE_CHECKING:
    from kconvert.model import Arrays, HLSModel

Array = npt.NDArray[Any]

_RUN = {"uint8": "kconvert_run_byte", "float32": "kconvert_run_float", "float64": "kconvert_run_double"}
"""The function that takes inputs of a dtype."""


def load(model: HLSModel) -> Library:
    """Compile the firmware of `model`, or find it in the cache, and load it with the model's weights."""
    firmware = firmware_of(model)
    sources = {**firmware.sources(with_weights=False), "bridge.cpp": firmware.bridge()}
    path = compile_object(sources, "bridge.cpp")
    try:
        return Library(model, firmware, path)
    except OSError:  # a damaged object: make it anew
        path.unlink(missing_ok=True)
        path = compile_object(sources, "bridge.cpp")
        try:
            return Library(model, firmware, path)
        except OSError as error:
            raise CompileError(f"the compiled object cannot be loaded: {error}") from error


class Library:
    """A shared object of a model's firmware, with the model's weights in it."""

    def __init__(self, model: HLSModel, firmware: Firmware, path: Path) -> None:
        """Load a copy of the object at `path`: a process has one set of globals for each file it loads."""
        self._inputs = model.inputs
        self._outputs = [port.value for port in firmware.ports_out]
        self._steps = [step.node.output for step in firmware.steps]
        self._traced = model.traced()
        self._object = load_copy(path)
        weakref.finalize(self, _ctypes.dlclose, self._object._handle)  # a tuning loop loads hundreds
        for name in _RUN.values():
            function = getattr(self._object, name)
            function.restype = ctypes.c_int
            function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long, ctypes.c_void_p, ctypes.c_int]
        self._streams: dict[str, Stream] = {}
        if isinstance(firmware, StreamFirmware):
            self._streams = {stream.variable: stream for stream in firmware.streams}
            self._object.kconvert_stream_fault.restype = ctypes.c_char_p
            self._object.kconvert_stream_fault.argtypes = [ctypes.POINTER(ctypes.c_long)]
        self._object.kconvert_load.restype = None
        self._object.kconvert_load.argtypes = [ctypes.c_int, ctypes.c_void_p]
        for index, named in enumerate(firmware.constants):
            raw = np.ascontiguousarray(named.constant.stored).astype(np.int64, copy=False)
            self._object.kconvert_load(index, raw.ctypes.data)

    def predict(self, x: Arrays, *, threads: int | None = None) -> Array | list[Array]:
        """See :meth:`HLSModel.predict`."""
        outputs, _ = self._run(self._arrays(x), threads, traced=False)
        return outputs[0] if len(outputs) == 1 else outputs

    def trace(self, x: Arrays, *, threads: int | None = None) -> dict[str, Array]:
        """See :meth:`HLSModel.trace`."""
        arrays = self._arrays(x)
        _, traces = self._run(arrays, threads, traced=True)
        stored = {id(value): array for value, array in self._stored(arrays, traces)}
        return {name: stored[id(storage_of(v))].reshape(-1, *v.shape) for name, v in self._traced.items()}

    def tensors(self, x: Arrays, *, threads: int | None = None) -> list[tuple[Value, Array]]:
        """Return every value that is stored, with or without a name in a trace: inputs, then results, [n, ...]."""
        arrays = self._arrays(x)
        _, traces = self._run(arrays, threads, traced=True)
        return self._stored(arrays, traces)

    def _stored(self, arrays: list[Array], traces: list[Array]) -> list[tuple[Value, Array]]:
        inputs = [(v, v.known_type().quantize(array)) for v, array in zip(self._inputs, arrays, strict=True)]
        steps = zip(self._steps, traces, strict=True)
        return [*inputs, *((value, array.reshape(-1, *value.shape)) for value, array in steps)]

    def _run(self, arrays: list[Array], threads: int | None, *, traced: bool) -> tuple[list[Array], list[Array]]:
        samples = len(arrays[0])
        outputs = [np.empty((samples, *v.shape)) for v in self._outputs]
        traces = [np.empty((samples, v.size)) for v in self._steps] if traced else []
        reports = np.zeros((len(arrays), 2), dtype=np.int_)
        if samples:
            run = getattr(self._object, _RUN[arrays[0].dtype.name])
            sinks = _pointers(traces) if traced else None
            count = _threads(threads)
            if run(_pointers(arrays), _pointers(outputs), sinks, samples, reports.ctypes.data, count):
                raise CompileError("cannot start a thread with a stack large enough for this model")
            if self._streams:
                self._check_streams()
        for value, array, (outside, not_finite) in zip(self._inputs, arrays, reports, strict=True):
            _check_values(value, array, int(outside), int(not_finite))
        return outputs, traces

    def _check_streams(self) -> None:
        left = ctypes.c_long()
        name = self._object.kconvert_stream_fault(ctypes.byref(left))
        if name is None:
            return
        if left.value < 0:
            raise MemoryError("no memory for the streams of this model")
        stream = self._streams[name.decode()]
        what = f"leaves {left.value} words in it" if left.value else "reads one more"
        raise StreamError(
            f"stream {stream.variable!r}: {_end(stream.writer)} writes words for {_end(stream.reader)}, which {what} "
            f"({stream.words} words of {stream.width} elements were expected)"
        )

    def _arrays(self, x: Arrays) -> list[Array]:
        """Return the inputs as C-contiguous arrays of one dtype: uint8, float32 or float64."""
        arrays = input_arrays(self._inputs, x)
        if all(a.dtype in (np.bool_, np.uint8) for a in arrays):
            return [np.ascontiguousarray(a).view(np.uint8) for a in arrays]
        dtype = np.float32 if all(_fits_float32(a.dtype) for a in arrays) else np.float64
        return [np.ascontiguousarray(a, dtype=dtype) for a in arrays]


def _end(name: str | None) -> str:
    return "the caller" if name is None else repr(name)


def _fits_float32(dtype: np.dtype[Any]) -> bool:
    return dtype in (np.float16, np.float32) or (dtype.kind in "iub" and dtype.itemsize <= 2)


def _check_values(value: Value, array: Array, outside: int, not_finite: int) -> None:
    name, kind = value.producer.name, value.known_type()
    if not_finite:
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input {name!r}: {not_finite} of {array.size} values are NaN or infinite, first at {where}")
    if outside and value.producer.preset.get("result") != kind:  # a quantizer's saturation is part of the model
        warnings.warn(
            f"input {name!r}: {outside} of {array.size} values are outside [{kind.min:g}, {kind.max:g}], the range of "
            f"its type {kind}; scale them, or set LayerName → {name} → Precision → result",
            PrecisionWarning,
            stacklevel=5,
        )


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(f"threads={wanted!r} is not a positive integer")
    return wanted


def _pointers(arrays: list[Array]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


def load_copy(path: Path) -> ctypes.CDLL:
    """Load a copy of the object at `path`, whose globals nobody else has."""
    folder = cache_folder()
    try:
        handle, name = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
    except OSError as error:
        raise CompileError(f"cannot write into the cache folder {folder}: {error.strerror}") from error
    try:
        try:
            shutil.copyfile(path, name)
        except OSError as error:
            raise CompileError(f"cannot copy the compiled object into {folder}: {error.strerror}") from error
        return ctypes.CDLL(name)
    finally:
        os.unlink(name)
