"""Rectifiers beyond a ReLU that bends at zero: one slope per channel, or a bend somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kconvert.layers.base import Constant, Node, narrowed
from kconvert.layers.steps import first_at_or_above
from kconvert.types import FixedType, Overflow, Rounding, exact_type, union


@dataclass(eq=False, kw_only=True)
class PRelu(Node):
    """``x`` above zero, ``slope * x`` below (PReLU).

    Attributes:
        slope: Flat; element number i has ``slope[i % slope.size]``.
    """

    slope: np.ndarray
    slope_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"slope": "slope_type", "result": "result_type"}
    template = "prelu"
    kernel = "nnet_rectifiers.h"
    absorbs = True
    narrows = True

    @property
    def pointwise(self) -> bool:  # type: ignore[override]  # what the others know of their class
        """True if the slopes are those of the channels."""
        return self.slope.size in (1, self.output.shape[-1])

    def infer_types(self, default: FixedType) -> None:
        """The result holds the input, and every product."""
        self.slope_type = self.slope_type or default
        exact = union(self.in_type(), self.in_type() * self.slope_type)
        self.result_type = self.result_type or narrowed(exact)

    def constants(self) -> dict[str, Constant]:
        """The slopes."""
        return {"slope": Constant(self.slope, self.typed("slope"))}


@dataclass(eq=False, kw_only=True)
class ThresholdRelu(Node):
    """``x`` above `threshold`, ``negative_slope * (x - threshold)`` elsewhere.

    With `max_value`, what lies above the threshold is clipped to [0, max_value] (Keras' ReLU, ThresholdedReLU).
    """

    threshold: float
    negative_slope: float = 0.0
    max_value: float | None = None

    template = "threshold_relu"
    kernel = "nnet_rectifiers.h"
    pointwise = True
    absorbs = True
    narrows = True

    def infer_types(self, default: FixedType) -> None:
        """The result holds the input, and the line below the threshold."""
        line = self.in_type() * exact_type(self.negative_slope) + exact_type(self._offset)
        self.result_type = self.result_type or narrowed(union(self.in_type(), line))

    @property
    def _offset(self) -> float:
        return -self.negative_slope * self.threshold

    def constants(self) -> dict[str, Constant]:
        """The first input above the threshold, the line below it, and the limit on the result's grid."""
        source, result = self.in_type(), self.typed("result")
        kind = FixedType(source.width + 1, source.integer + 1, source.signed)
        first = first_at_or_above(self.threshold, inclusive=False, grid=source)
        raw = min(max(first, source.raw_min), source.raw_max + 1)
        found = {
            "threshold": Constant(kind.from_raw([raw]), kind, np.array([raw], dtype=kind.raw_dtype)),
            "slope": Constant(np.array([self.negative_slope]), exact_type(self.negative_slope)),
            "offset": Constant(np.array([self._offset]), exact_type(self._offset)),
        }
        if self.max_value is not None:
            grid = FixedType(result.width, result.integer, result.signed, Rounding.RND, Overflow.SAT)
            found["limit"] = Constant(np.array([self.max_value]), grid)
        return found
