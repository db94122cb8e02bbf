"""Nodes of the intermediate representation for the analog multiplier.

Its answer to a sum is a *level*, ``clip(floor(gain * sum), -128, 127)``, which the mock computes in float32. That stays
as it is, a function of whole numbers: by the first sum of every level, found by evaluating it for every sum there is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, GraphError
from kconvert.layers import Constant, Conv, Dense, Node, Quantize, ScaledQuantize, Weighted
from kconvert.types import FixedType, Overflow, Rounding, exact_type, grow

from .parameters import OUTPUT_RANGE, ROWS

INPUT = FixedType(5, 5, False, Rounding.RND_CONV, Overflow.SAT)
WEIGHT = FixedType(7, 7)
POSITIVE = FixedType(7, 7, False, Rounding.TRN, Overflow.SAT)
LEVEL = FixedType(8, 8, True, Rounding.TRN, Overflow.SAT)
NEAREST = LEVEL.with_(rounding=Rounding.RND)
FACTOR_BITS = 9
"""Bits of the gain in hardware: enough for the nearest level to be the right one or the one above it."""
LEVELS = np.arange(OUTPUT_RANGE[0], OUTPUT_RANGE[1] + 1)
BY_BITS = np.roll(LEVELS, OUTPUT_RANGE[0])
"""The levels in the order of their bits, read as an unsigned number."""

Whole = npt.NDArray[np.int64]


def level(gain: float, sums: npt.ArrayLike) -> Whole:
    """Return the levels of whole sums in the arithmetic of the mock: a product in float32, and its floor."""
    product = np.asarray(sums, np.float32) * np.float32(gain)
    return np.asarray(np.clip(np.floor(product), *OUTPUT_RANGE), np.int64)


def factor_type(gain: float) -> FixedType:
    """Return the type of the gain in hardware, in which its leading bit is set."""
    return FixedType(FACTOR_BITS, int(np.frexp(gain)[1]), False, Rounding.RND, Overflow.SAT)


@functools.lru_cache(maxsize=64)
def first_sums(gain: float, largest: int) -> Whole:
    """Return for every level, in the order of its bits, the first sum that has it or a higher one.

    Of a level that no sum from ``-largest`` to `largest` has, that is ``largest + 1``.

    Raises:
        GraphError: with this table, hardware would come to another level than :func:`level`; every sum is tried.
    """
    sums = np.arange(-largest, largest + 1)
    levels = level(gain, sums)
    first = np.searchsorted(levels, BY_BITS) - largest
    nearest = NEAREST.to_raw(sums * factor_type(gain).quantize(gain))
    if not np.array_equal(nearest_or_below(sums, nearest, first), levels):
        raise GraphError(f"the level of a sum, for a gain of {gain}, is not the one nearest to it nor the one below")
    return np.asarray(first, np.int64)


def nearest_or_below(sums: Whole, nearest: Whole, first: Whole) -> Whole:
    """Return the levels as hardware finds them: the one below the nearest where that one's first sum is not reached."""
    return np.where(sums < first[nearest], np.maximum(nearest - 1, OUTPUT_RANGE[0]), nearest)


@dataclass(eq=False, kw_only=True)
class AnalogInput(Quantize):
    """Rounds what a multiplier reads to whole numbers from 0 to 31."""

    stores_input_in: ClassVar[FixedType | None] = INPUT


@dataclass(eq=False, kw_only=True)
class AnalogRelu(Quantize):
    """``clip(floor(x), 0, 127)``."""

    stores_input_in: ClassVar[FixedType | None] = POSITIVE


@dataclass(eq=False, kw_only=True)
class AnalogConvertingRelu(ScaledQuantize):
    """``clip(floor(clip(floor(x), 0, 127) * factor), 0, 31)``, the factor being ``2**-shift``: a code times 1."""

    stores_input_in: ClassVar[FixedType | None] = POSITIVE


@dataclass(eq=False, kw_only=True)
class Analog(Weighted):
    """``level(x W)`` of 128 inputs at a time, added, plus a bias; the sum of levels saturates, and that with the bias.

    Attributes:
        gain: Level for a sum of 1, the number of sends included.
    """

    gain: float

    roles: ClassVar[Mapping[str, str]] = {"weight": "weight_type", "bias": "bias_type", "result": "result_type"}
    kernel = "nnet_analog.h"
    height: ClassVar[int] = ROWS
    level_type: ClassVar[FixedType] = NEAREST

    @property
    def rows(self) -> int:
        """Inputs of the largest chunk."""
        return min(self.height, self.fan_in)

    @property
    def sum_type(self) -> FixedType:
        """Type that holds every sum of a chunk."""
        return grow(self.in_type() * self.typed("weight"), self.rows)

    @property
    def total_type(self) -> FixedType:
        """Type that holds every sum of levels."""
        return grow(LEVEL, -(-self.fan_in // self.height))

    def infer_types(self, default: FixedType) -> None:
        """All types are the chip's; narrower ones are possible."""
        _demand(self.inputs[0].producer, "result", self.in_type(), INPUT)
        _demand(self, "weight", self.weight_type or WEIGHT, WEIGHT)
        self.weight_type = self.weight_type or WEIGHT
        self.bias_type = self.bias_type or LEVEL
        self.result_type = self.result_type or LEVEL

    def constants(self) -> dict[str, Constant]:
        """Weights and bias, the short gain, and the first sum of every level."""
        largest = self.rows * int(self.in_type().max * max(-self.typed("weight").min, self.typed("weight").max))
        kind = FixedType(self.sum_type.width + 1, self.sum_type.width + 1)
        return {
            **super().constants(),
            "factor": Constant(np.array([self.gain]), factor_type(self.gain)),
            "threshold": Constant(first_sums(self.gain, largest), kind),
        }

    @property
    def scratch(self) -> int:
        """A window in two orders, and three numbers for every output."""
        return 2 * self.fan_in + 3 * self.fan_out

    def check(self) -> None:
        """Every chunk has to divide evenly over the reuse factor."""
        sizes = {self.rows, self.fan_in % self.height or self.rows}
        if self.strategy == "Resource" and any(n * self.fan_out % self.reuse_factor for n in sizes):
            common = math.gcd(*(n * self.fan_out for n in sizes))
            raise ConfigError(
                f"layer {self.name!r}: ReuseFactor {self.reuse_factor} does not divide the products of its chunks of "
                f"{' and '.join(map(str, sorted(sizes)))} inputs; divisors of {common} do"
            )
        super().check()


@dataclass(eq=False, kw_only=True)
class AnalogDense(Analog, Dense):
    """The multiplier applied to the last axis, at every position."""

    template = "analog_dense"


@dataclass(eq=False, kw_only=True)
class AnalogConv(Analog, Conv):
    """The multiplier applied to windows, weights [channels, height, width, filters]: chunks go channel by channel."""

    template = "analog_conv"


@dataclass(eq=False, kw_only=True)
class LevelTable(Node):
    """A function of a level for each channel: ``y[..., c] = entries[c][x[..., c]]``.

    Attributes:
        entries: [channels, 256], by the bits of the level.
    """

    entries: npt.NDArray[np.float64]

    template = "level_table"
    kernel = "nnet_analog.h"
    pointwise = True
    absorbs = True
    chooses = True

    def _result_may_stay_wide(self) -> bool:
        return True  # it holds what the entries are

    def infer_types(self, default: FixedType) -> None:
        """The result holds every entry: to 64 bits where nothing computes with it but what rounds it, else to 32."""
        _demand(self.inputs[0].producer, "result", self.in_type(), LEVEL)
        rounded = all(user.absorbs or user.passes_on() for user in self.output.users)
        self.result_type = self.result_type or exact_type(self.entries, 64 if rounded else 32)

    def constants(self) -> dict[str, Constant]:
        """The entries."""
        return {"entry": Constant(self.entries, self.typed("result"))}


def _demand(node: Node, role: str, kind: FixedType, chip: FixedType) -> None:
    """Refuse a type for something that the chip gives another; only narrower ones are possible."""
    if not chip.holds(kind):
        raise ConfigError(
            f"layer {node.name!r}: its {role} is {kind}, and the analog multiplier takes {chip}; set LayerName → "
            f"{node.layer} → Precision → {role} to {chip}"
        )
