"""Products by an approximate multiplier through its table, in compiled C++: exact for every multiplier."""

from __future__ import annotations

import ctypes
import functools
import os
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.csim.compiler import compile_object
from kconvert.errors import CompileError

from ..errors import check

Codes = npt.NDArray[np.int8]
Sums = npt.NDArray[np.int32]
Pair = tuple[int, int]

PATHS = {"portable": 0, "avx2": 1, "avx512vbmi": 2}
_MOST_TERMS = 2**16
"""A sum of this many 16-bit products fits in 32 bits."""


class _Problem(ctypes.Structure):
    """As in native/table.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "w", "out")),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_long) for name in ("kernel_height", "kernel_width", "outputs", "groups")),
        *((name, ctypes.c_long) for name in ("stride_y", "stride_x", "dilation_y", "dilation_x")),
        *((name, ctypes.c_long) for name in ("top", "left", "padded_height", "padded_width")),
        *((name, ctypes.c_long) for name in ("out_height", "out_width")),
    )


class TableProduct:
    """Sums of approximate products of int8 codes, as int32.

    Args:
        table: Integers of 16 bits, [256, 256]: approx(x, w), rows x (inputs) and columns w (weights) from -128 to 127.
        path: Which of :data:`PATHS` computes it, all with the same answer; without it, the fastest that this processor
            has.
        threads: How many threads share the work; all cores that this process may use by default.

    Raises:
        ApproxError: the table does not fit.
        CompileError: there is no C++ compiler, or it does not know the path.
    """

    def __init__(self, table: npt.ArrayLike, *, path: str | None = None, threads: int | None = None) -> None:
        products = np.asarray(table)
        check(
            products.shape == (256, 256)
            and products.dtype.kind in "iu"
            and bool((products == products.astype(np.int16)).all()),
            f"table: expected 16-bit integers [256, 256], received {products.dtype} {list(products.shape)}",
        )
        check(path is None or path in PATHS, f"path is one of {', '.join(PATHS)}; received {path!r}")
        check(threads is None or threads >= 1, f"threads={threads!r} is not a positive integer")
        self._native = _native(path)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.threads = threads or cores
        self._room = ctypes.create_string_buffer(self._native.table_size())
        given = np.ascontiguousarray(products, np.int32)
        self._prepared = self._native.table_prepare(ctypes.addressof(self._room), given.ctypes.data)

    def matrix(self, x: Codes, w: Codes) -> Sums:
        """Return int32 [m, n], the sums over k of approx(x[m, k], w[k, n])."""
        check(x.ndim == w.ndim == 2 and x.shape[1] == w.shape[0], f"shapes {x.shape} and {w.shape} do not fit")
        sums: Sums = self.convolution(x[None, None], w[None, None])[0, 0]
        return sums

    def convolution(
        self,
        x: Codes,
        w: Codes,
        strides: Pair = (1, 1),
        dilation: Pair = (1, 1),
        pads: tuple[Pair, Pair] = ((0, 0), (0, 0)),
        groups: int = 1,
    ) -> Sums:
        """Return int32 [images, rows, columns, outputs].

        Args:
            x: int8 [images, height, width, channels].
            w: int8 [kernel_height, kernel_width, channels / groups, outputs].
            strides: Of rows and columns.
            dilation: Distance of the kernel's elements.
            pads: Rows of code 0 above and below, columns left and right; a multiplier may make an error of them.
            groups: The channels, and with them the outputs, are in so many groups; as many as channels for a depthwise
                convolution.

        Raises:
            ApproxError: the shapes do not fit each other, or the fan-in is too large for sums of 32 bits.
        """
        x, w = np.ascontiguousarray(x, np.int8), np.ascontiguousarray(w, np.int8)
        (images, height, width, channels), (kh, kw, inputs, outputs) = x.shape, w.shape
        check(
            inputs * groups == channels and outputs % groups == 0,
            f"inputs {x.shape} and kernel {w.shape} do not fit in {groups} groups",
        )
        check(kh * kw * inputs < _MOST_TERMS, f"kernel {w.shape}: sums of {kh * kw * inputs} products exceed 32 bits")
        padded = height + sum(pads[0]), width + sum(pads[1])
        rows, columns = (
            max((size - (k - 1) * d - 1) // s + 1, 0)
            for size, k, s, d in zip(padded, (kh, kw), strides, dilation, strict=True)
        )
        out = np.empty((images, rows, columns, outputs), np.int32)
        problem = _Problem(
            *(x.ctypes.data, w.ctypes.data, out.ctypes.data),
            *(images, height, width, channels, kh, kw, outputs, groups, *strides, *dilation),
            *(pads[0][0], pads[1][0], *padded, rows, columns),
        )
        if out.size and self._native.table_run(ctypes.byref(problem), self._prepared, self.threads):
            raise MemoryError(f"no memory for a convolution of {x.shape} by {w.shape}")
        return out


@functools.cache
def _native(path: str | None) -> Any:
    """Return the compiled functions."""
    text = (resources.files(__package__).joinpath("..", "native", "table.cpp")).read_text(encoding="utf-8")
    chosen = "" if path is None else f"#define TABLE_PATH {PATHS[path]}\n"
    name = "table.cpp"
    compiled = compile_object({name: chosen + text}, name)
    try:
        functions = ctypes.CDLL(str(compiled))
    except OSError as error:
        raise CompileError(f"the compiled object cannot be loaded: {error}") from error
    functions.table_size.restype, functions.table_size.argtypes = ctypes.c_long, []
    functions.table_prepare.restype = ctypes.c_void_p
    functions.table_prepare.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    functions.table_run.restype = ctypes.c_int
    functions.table_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return functions
