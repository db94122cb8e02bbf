"""Approximate multipliers of signed 8-bit operands: what they compute, how far off they are, what they cost."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kconvert.csim.compiler import compile_object

from .errors import ApproxError, check

CODES = np.arange(-128, 128, dtype=np.int32)
"""The operands, in the order of the rows and columns of every table."""

EXACT_PRODUCTS = np.multiply.outer(CODES, CODES)
"""int32 [256, 256]: x·y, rows x and columns y from -128 to 127."""
EXACT_PRODUCTS.flags.writeable = False


@dataclass(frozen=True)
class ErrorStatistics:
    """Statistics of approx(x, y) - x·y over all 65,536 pairs of operands, each as likely as any other."""

    mean: float
    std: float
    mae: float
    """Mean absolute error."""
    mse: float
    """Mean squared error."""
    wce: int
    """Worst case: the largest absolute error."""
    error_rate: float
    """Share of the pairs whose product is wrong."""
    zero_safe: bool
    """approx(0, y) = approx(x, 0) = 0: padding with zeros adds no error."""


@dataclass(frozen=True, eq=False)
class ApproximateMultiplier:
    """A multiplier of two signed 8-bit codes, described by the error of each of its products.

    Args:
        name: any text that is not empty.
        performance_metric: what it costs (power, area, ...): a finite number, lower is cheaper. Multipliers are
            compared by it, so all of one library state the same figure in the same unit.
        error_map: integers [256, 256]: error_map[x + 128][y + 128] = x·y - approx(x, y), with x the activation and y
            the weight, from -128 to 127. Every approx(x, y) fits in 16 bits.
        cpp: body of a C++14 function ``int (int x, int y)`` that computes approx(x, y) without tables, loops or
            branches; None where there is none.
        verilog: a module with inputs ``x`` and ``y`` and an output ``p``, or another library's own; None likewise.

    Raises:
        ApproxError: an argument is none of this.
    """

    name: str
    performance_metric: float
    error_map: np.ndarray[Any, Any]
    cpp: str | None = None
    verilog: str | None = None

    def __post_init__(self) -> None:
        check(
            isinstance(self.name, str) and self.name.strip() != "",
            f"a multiplier's name is a text that is not empty; received {self.name!r}",
        )
        where = f"multiplier {self.name!r}"
        try:
            metric = float(self.performance_metric)
        except (TypeError, ValueError):
            metric = math.nan
        check(
            math.isfinite(metric),
            f"{where}: performance_metric is a finite number (power, area, ...); received {self.performance_metric!r}",
        )
        errors = integer_table(self.error_map, f"{where}: error_map")
        products = EXACT_PRODUCTS - errors
        check(
            bool((products == products.astype(np.int16)).all()),
            f"{where}: x·y - error_map[x + 128][y + 128] is to fit in 16 bits; it spans {products.min()} to "
            f"{products.max()}",
        )
        errors = errors.astype(np.int32)
        errors.flags.writeable = False
        object.__setattr__(self, "performance_metric", metric)
        object.__setattr__(self, "error_map", errors)

    @classmethod
    def from_table(
        cls, name: str, performance_metric: float, table: Any, cpp: str | None = None, verilog: str | None = None
    ) -> ApproximateMultiplier:
        """Return the multiplier of a table of products: integers [256, 256], table[x + 128][y + 128] = approx(x, y).

        Raises:
            ApproxError: see the class.
        """
        products = integer_table(table, f"multiplier {name!r}: table of products")
        return cls(name, performance_metric, EXACT_PRODUCTS - products, cpp, verilog)

    @classmethod
    def from_function(
        cls, name: str, performance_metric: float, function: Callable[[Any, Any], Any]
    ) -> ApproximateMultiplier:
        """Return the multiplier that computes function(x, y), called once with two int64 arrays [256, 256].

        Raises:
            ApproxError: see the class.
        """
        x, y = np.meshgrid(CODES.astype(np.int64), CODES.astype(np.int64), indexing="ij")
        return cls.from_table(name, performance_metric, function(x, y))

    @cached_property
    def table(self) -> np.ndarray[Any, Any]:
        """int32 [256, 256], read-only: table[x + 128][y + 128] = approx(x, y)."""
        products = np.asarray(EXACT_PRODUCTS - self.error_map)
        products.flags.writeable = False
        return products

    @property
    def exact(self) -> bool:
        """Whether every product is right."""
        return not self.error_map.any()

    @cached_property
    def statistics(self) -> ErrorStatistics:
        """How large the errors are, and their sign: a positive mean says that products are too large."""
        errors = -self.error_map.astype(np.int64)
        zero = self.error_map[128].any() or self.error_map[:, 128].any()
        return ErrorStatistics(
            mean=float(errors.mean()),
            std=float(errors.std()),
            mae=float(np.abs(errors).mean()),
            mse=float((errors * errors).mean()),
            wce=int(np.abs(errors).max()),
            error_rate=float((errors != 0).mean()),
            zero_safe=not zero,
        )

    def with_metric(self, performance_metric: float) -> ApproximateMultiplier:
        """Return the same multiplier with another cost, as to compare it with those of another library."""
        return replace(self, performance_metric=performance_metric)

    def cpp_function(self, identifier: str) -> str:
        """Return C++14 source that defines ``static inline int identifier(int x, int y)``.

        Raises:
            ApproxError: there is no behavioural source, or `identifier` is no C++ identifier.
        """
        check(
            re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", identifier) is not None,
            f"multiplier {self.name!r}: {identifier!r} is no C++ identifier",
        )
        if self.cpp is None:
            raise ApproxError(f"multiplier {self.name!r} has no behavioural C++ source, only its table")
        return f"static inline int {identifier}(int x, int y) {{\n{self.cpp}}}\n"


def exact_multiplier(performance_metric: float = 1.0) -> ApproximateMultiplier:
    """Return the multiplier whose products are all right."""
    errors = np.zeros((256, 256), np.int32)
    return ApproximateMultiplier("exact", performance_metric, errors, "    return x * y;\n")


def compiled_tables(multipliers: Iterable[ApproximateMultiplier]) -> list[np.ndarray[Any, Any]]:
    """Return what the C++ sources of multipliers compute: int32 [256, 256] each, like ``table``.

    All are compiled into one shared object, with the compiler that compiles models.

    Raises:
        ApproxError: one of them has no source.
        CompileError: there is no compiler, or it rejects a source.
    """
    functions = [one.cpp_function(f"product_{number}") for number, one in enumerate(multipliers)]
    calls = [f"product_{number}" for number in range(len(functions))]
    return run_products("".join(functions), calls)


def run_products(
    definitions: str, calls: Sequence[str], files: Mapping[str, str] | None = None
) -> list[np.ndarray[Any, Any]]:
    """Compile functions of two operands from -128 to 127 and return all products of each: int32 [256, 256].

    Args:
        definitions: C++ source.
        calls: what stands before ``(x, y)`` for each of them.
        files: further sources that `definitions` includes, by path.
    """
    loops = [
        f"    for (int x = -128; x < 128; x++)\n        for (int y = -128; y < 128; y++)\n"
        f"            *to++ = {call}(x, y);\n"
        for call in calls
    ]
    main = "".join(
        [
            definitions,
            'extern "C" __attribute__((visibility("default"))) void all_products(int *to) {\n',
            *loops,
            "}\n",
        ]
    )
    compiled = ctypes.CDLL(str(compile_object({**(files or {}), "products.cpp": main}, "products.cpp")))
    products = np.empty((len(calls), 256, 256), np.int32)
    compiled.all_products(ctypes.c_void_p(products.ctypes.data))
    return list(products)


def integer_table(values: Any, where: str) -> np.ndarray[Any, Any]:
    """Return values, whole numbers of any type, as int64 [256, 256].

    Raises:
        ApproxError: they have another shape, or are not whole.
    """
    array = np.asarray(values)
    whole = array.dtype.kind in "iu"
    if array.dtype.kind == "f":
        whole = bool(np.isfinite(array).all() and (array == np.rint(array)).all())
    check(
        array.shape == (256, 256) and whole,
        f"{where}: expected whole numbers of shape [256, 256], operands from -128 to 127; received {array.dtype} "
        f"{list(array.shape)}",
    )
    return array.astype(np.int64)
