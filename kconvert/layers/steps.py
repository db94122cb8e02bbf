"""Step functions: what is left of a quantised activation when it is known where its result changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kconvert.errors import ConfigError, GraphError
from kconvert.layers.base import MAX_WIDTH, Constant, Node
from kconvert.types import FixedType, Overflow, exact_type


@dataclass(eq=False, kw_only=True)
class Thresholds(Node):
    """``y = levels[n]``, n the number of thresholds that x has reached.

    Attributes:
        thresholds: Where the result changes, ascending along axis 0, [k, channels], or [k, 1] for all channels alike;
            they may be infinite.
        levels: The results, [k + 1].
        inclusive: A threshold is reached at ``x >= t`` if true, at ``x > t`` if false; one for all, or k of them.
    """

    thresholds: np.ndarray
    levels: np.ndarray
    inclusive: bool | Sequence[bool] = True

    template = "thresholds"
    kernel = "nnet_steps.h"
    absorbs = True

    def _result_may_stay_wide(self) -> bool:
        return True  # it is not wide: few bits hold all levels

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
        inclusive = np.shape(self.inclusive)
        if len(shape) != 2 or not shape[0] or shape[1] not in (1, channels):
            raise GraphError(f"layer {self.name!r}: thresholds {shape} are not [k, {channels}] or [k, 1]")
        if self.levels.shape != (shape[0] + 1,):
            raise GraphError(
                f"layer {self.name!r}: {shape[0]} thresholds need {shape[0] + 1} levels, not {self.levels.shape}"
            )
        if inclusive not in ((), shape[:1]):
            raise GraphError(f"layer {self.name!r}: {inclusive[0]} values of inclusive for {shape[0]} thresholds")
        if not (self.thresholds[1:] >= self.thresholds[:-1]).all() or np.isnan(self.thresholds).any():
            raise GraphError(f"layer {self.name!r}: thresholds must be ascending numbers along axis 0")

    def constants(self) -> dict[str, Constant]:
        """The first value of the input's grid that reaches each threshold, and the levels as results."""
        source, kind, result = self.in_type(), self.threshold_type, self.typed("result")
        # One bit more than the thresholds' type, so that their negatives fit as well; Python ints, so that + 1 does.
        grid = FixedType(kind.width + 1, kind.integer + 1, overflow=Overflow.SAT)
        at = -grid.to_raw(-self.thresholds).astype(object)
        above = grid.to_raw(self.thresholds).astype(object) + 1
        first = np.where(np.reshape(self.inclusive, (-1, 1)), at, above)
        # Every input reaches the lowest value, and none the one above the highest. Sorted, because x > t may stand
        # before x >= t.
        raw = np.sort(np.clip(first, source.raw_min, source.raw_max + 1).astype(kind.raw_dtype), axis=0)
        level = result.requantize(self.level_type.to_raw(self.levels), self.level_type)
        return {
            "threshold": Constant(kind.from_raw(raw), kind, raw.ravel()),
            "level": Constant(self.levels, result, level),
        }
