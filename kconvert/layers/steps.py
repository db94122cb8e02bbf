"""Step functions: what is left of a quantised activation when it is known where its result changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, GraphError
from kconvert.layers.base import MAX_WIDTH, Constant, Node
from kconvert.types import FixedType, exact_type


@dataclass(eq=False, kw_only=True)
class Thresholds(Node):
    """``y = levels[n]``, n the number of thresholds that x has reached.

    Attributes:
        thresholds: Where the result changes, ascending along axis 0, [k, channels], or [k, 1] for all channels alike;
            floats, which may be infinite, or Fractions.
        levels: The results, [k + 1], or [k + 1, channels].
        inclusive: A threshold is reached at ``x >= t`` if true, at ``x > t`` if false; one for all, k of them, or
            [k, channels].
    """

    thresholds: np.ndarray
    levels: np.ndarray
    inclusive: bool | Sequence[bool] | npt.NDArray[np.bool_] = True

    template = "thresholds"
    kernel = "nnet_steps.h"
    pointwise = True
    absorbs = True
    chooses = True

    def _result_may_stay_wide(self) -> bool:
        return True  # it is not wide: few bits hold all levels

    @property
    def channel_levels(self) -> np.ndarray:
        """The levels as [k + 1, channels], or [k + 1, 1] where they are the same for all."""
        return self.levels if self.levels.ndim == 2 else self.levels[:, None]

    @property
    def channel_inclusive(self) -> npt.NDArray[np.bool_]:
        """`inclusive` for each threshold, [k, channels] or [k, 1]."""
        flags = np.asarray(self.inclusive, dtype=bool)
        return flags if flags.ndim == 2 else np.broadcast_to(flags, self.thresholds.shape[:1])[:, None]

    @property
    def threshold_channels(self) -> int:
        """Number of channels with thresholds of their own, or 1."""
        return max(len(self.thresholds[0]), len(self.channel_inclusive[0]))

    @property
    def level_channels(self) -> int:
        """Number of channels with levels of their own, or 1."""
        return int(self.channel_levels.shape[1])

    @property
    def level_type(self) -> FixedType:
        """Type of the levels before they are converted to the result's."""
        return exact_type(self.levels)

    @property
    def threshold_type(self) -> FixedType:
        """The input's grid, with room for the one value above its range that no input reaches."""
        source = self.in_type()
        return FixedType(source.width + 1, source.integer + 1, source.signed)

    def infer_types(self, default: FixedType) -> None:
        """The result holds every level."""
        self._check_steps()
        if self.threshold_type.width > MAX_WIDTH:
            raise ConfigError(
                f"layer {self.name!r}: its input {self.inputs[0].producer.name!r} has {self.in_type().width} bits, and "
                f"{MAX_WIDTH - 1} are the most a threshold is compared with; give {self.inputs[0].producer.name!r} a "
                f"result precision with fewer bits"
            )
        self.result_type = self.result_type or self.level_type

    def _check_steps(self) -> None:
        # Here, not where the node is made: passes may still have moved the thresholds.
        channels, shape = self.output.shape[-1], self.thresholds.shape
        inclusive, levels = np.shape(self.inclusive), self.levels.shape
        if len(shape) != 2 or not shape[0] or shape[1] not in (1, channels):
            raise GraphError(f"layer {self.name!r}: thresholds {shape} are not [k, {channels}] or [k, 1]")
        if levels[:1] != (shape[0] + 1,) or levels[1:] not in ((), (1,), (channels,)):
            raise GraphError(f"layer {self.name!r}: {shape[0]} thresholds need {shape[0] + 1} levels, not {levels}")
        if inclusive[:1] not in ((), shape[:1]) or inclusive[1:] not in ((), (1,), (channels,)):
            raise GraphError(f"layer {self.name!r}: {inclusive[0]} values of inclusive for {shape[0]} thresholds")
        # what is not a number is not equal to itself
        if not (self.thresholds[1:] >= self.thresholds[:-1]).all() or (self.thresholds != self.thresholds).any():
            raise GraphError(f"layer {self.name!r}: thresholds must be ascending numbers along axis 0")

    def constants(self) -> dict[str, Constant]:
        """The first value of the input's grid that reaches each threshold, and the levels as results."""
        source, kind, result = self.in_type(), self.threshold_type, self.typed("result")
        thresholds, inclusive = np.broadcast_arrays(self.thresholds, self.channel_inclusive)
        # Every input reaches the lowest value, and none the one above the highest.
        first = [
            min(max(first_at_or_above(t, at, source), source.raw_min), source.raw_max + 1)
            for t, at in zip(thresholds.flat, inclusive.flat, strict=True)
        ]
        # Sorted, because x > t may stand before x >= t.
        raw = np.sort(np.array(first, dtype=kind.raw_dtype).reshape(thresholds.shape), axis=0)
        level = result.requantize(self.level_type.to_raw(self.channel_levels), self.level_type)
        return {
            "threshold": Constant(kind.from_raw(raw), kind, raw.ravel()),
            "level": Constant(self.channel_levels, result, level.ravel()),
        }


def first_at_or_above(threshold: Any, inclusive: bool, grid: FixedType) -> int:
    """Return the lowest number of the grid, in units of its step, that reaches the threshold; exact, and unlimited."""
    if isinstance(threshold, float) and math.isinf(threshold):
        return grid.raw_max + 1 if threshold > 0 else grid.raw_min
    scaled = Fraction(threshold) * Fraction(2) ** grid.fraction
    return math.ceil(scaled) if inclusive else math.floor(scaled) + 1
