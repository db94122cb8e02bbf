"""Activation functions: piecewise linear ones, and those read from tables computed at conversion.

A table is addressed by the raw bits of the input after one conversion to a small *index type* that rounds to the
nearest entry and saturates. The index type spans the range in which the function is not yet constant to the
precision of the table, or the input's own range where that is smaller: so a table covers every input there is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from kconvert.errors import ConfigError, GraphError, PrecisionWarning
from kconvert.layers.base import MAX_WIDTH, Constant, Node, narrowed
from kconvert.layers.core import View
from kconvert.layers.curves import CURVES, Curve
from kconvert.layers.lookup import TABLE_SIZE, Lookup, default_table_size, default_table_type
from kconvert.types import FixedType, Overflow, Rounding, exact_type, grow

LARGEST_TABLE = 1 << 20
LARGEST_EXACT_TABLE = 1 << 16
"""Most entries of a table that holds every input a step function has, unless the settings name another size."""
SOFTMAX_IMPLEMENTATIONS = ("stable", "latency", "argmax")


@dataclass(eq=False, kw_only=True)
class Quantize(View):
    """Stores its input in the type of its result: a quantizer used as an activation."""

    pointwise = True
    absorbs = True
    narrows = True
    keeps_values = False


@dataclass(eq=False, kw_only=True)
class ScaledQuantize(Node):
    """``scale * code(factor * x)`` per channel (last axis), `code` storing in a type: a quantizer with an alpha.

    Attributes:
        scale: One number, or one for each channel.
        factor: The same; None for 1.
        code_type: Type of what is rounded.
    """

    scale: np.ndarray
    factor: np.ndarray | None = None
    code_type: FixedType | None = None
    scale_type: FixedType | None = None
    factor_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"code": "code_type", "scale": "scale_type", "result": "result_type"}
    template = "scaled_quantize"
    kernel = "nnet_activation.h"
    pointwise = True
    absorbs = True
    narrows = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is not None:
            self.roles = {**self.roles, "factor": "factor_type"}  # type: ignore[misc]  # others have none to set

    @property
    def channels(self) -> int:
        """Number of scales: the size of the last axis, or 1 where all channels share one."""
        return self.scale.size

    def infer_types(self, default: FixedType) -> None:
        """The result holds every code times its scale."""
        if self.channels not in (1, self.output.shape[-1]):
            raise GraphError(
                f"layer {self.name!r}: {self.channels} scales (its alpha) for {self.output.shape[-1]} channels"
            )
        self.code_type = self.code_type or default
        self.scale_type = self.scale_type or exact_type(self.scale)
        if self.factor is not None:
            self.factor_type = self.factor_type or exact_type(self.factor)
        self.result_type = self.result_type or self.lossless(self.code_type * self.scale_type, "result")

    def constants(self) -> dict[str, Constant]:
        """Scale and factor."""
        found = {"scale": Constant(self.scale, self.typed("scale"))}
        if self.factor is not None:
            found["factor"] = Constant(self.factor, self.typed("factor"))
        return found


@dataclass(eq=False, kw_only=True)
class Relu(Node):
    """``max(x, negative_slope * x)`` between `min_value` and `max_value`, where there are any (ReLU, LeakyReLU)."""

    negative_slope: float = 0.0
    max_value: float | None = None
    min_value: float | None = None
    slope_type: FixedType | None = None

    template = "relu"
    kernel = "nnet_activation.h"
    pointwise = True
    absorbs = True
    narrows = True
    leaky_roles: ClassVar[Mapping[str, str]] = {"slope": "slope_type", "result": "result_type"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_slope:
            self.roles = self.leaky_roles  # type: ignore[misc]  # a plain ReLU has no slope to set

    def infer_types(self, default: FixedType) -> None:
        """Non-negative input values pass unchanged; a slope adds the fraction bits of the product."""
        source = self.in_type()
        if not self.negative_slope:
            exact = source if not source.signed else FixedType(source.width - 1, source.integer - 1, False)
            self.result_type = self.result_type or (exact if exact.width else source)
            return
        self.slope_type = self.slope_type or default
        exact = source * self.slope_type
        if 0 <= self.negative_slope < 1:  # no product has more integer bits than its input
            exact = FixedType(source.integer + exact.fraction, source.integer, exact.signed)
        self.result_type = self.result_type or self.lossless(exact, "result")

    def constants(self) -> dict[str, Constant]:
        """Slope and limits, where there are any; limits are rounded to the result's grid."""
        result = self.typed("result")
        grid = FixedType(result.width, result.integer, result.signed, Rounding.RND, Overflow.SAT)
        limits = {"limit": self.max_value, "lower_limit": self.min_value}
        found = {role: Constant(np.array([value]), grid) for role, value in limits.items() if value is not None}
        if self.negative_slope:
            found["slope"] = Constant(np.array([self.negative_slope]), self.typed("slope"))
        return found


def index_type(source: FixedType, reach: float, size: int, signed: bool) -> FixedType:
    """Return the type whose raw bits address a table of at most `size` entries.

    Args:
        source: Type of the value looked up.
        reach: Magnitude beyond which the function is constant.
        size: Number of entries, a power of two.
        signed: Whether the value can be negative.
    """
    bits = size.bit_length() - 1
    integer = max(math.ceil(math.log2(reach)), -24) + (1 if signed else 0)
    own = source.integer + (1 if signed and not source.signed else 0) - (1 if source.signed and not signed else 0)
    integer = min(integer, own)
    fraction = min(bits - integer, source.fraction)
    width = max(integer + fraction, 1 + signed)
    return FixedType(width, integer, signed, Rounding.RND, Overflow.SAT)


def check_table_size(node: Node, size: int) -> None:
    """Raise :class:`ConfigError` unless `size` is a power of two from 2 to 2^20."""
    if size < 2 or size & (size - 1) or size > LARGEST_TABLE:
        bits = min(max(size, 2).bit_length(), LARGEST_TABLE.bit_length() - 1)
        raise ConfigError(
            f"layer {node.name!r}: a table of {size} entries cannot be addressed by whole bits; "
            f"use {1 << max(bits - 1, 1)} or {1 << bits}"
        )


@dataclass(frozen=True)
class StepFunction:
    """A function of few values, known where it changes.

    Attributes:
        values: Maps numbers to the function's values.
        first: It is constant below this number,
        last: and from this number on.
    """

    values: Callable[[np.ndarray], np.ndarray]
    first: float
    last: float

    def index_type(self, source: FixedType, size: int) -> FixedType:
        """Return the type with the fewest bits that tells all inputs apart that differ in their value.

        Where `size` entries are too few for that, it is coarser than the input.
        """
        bits, signed = size.bit_length() - 1, source.signed
        for integer in range(1 + signed - source.fraction, source.integer + 1):
            fraction = min(source.fraction, bits - integer)
            index = FixedType(integer + fraction, integer, signed, Rounding.RND, Overflow.SAT)
            if index.max >= self.last and (not signed or index.min < self.first):
                return index
        fraction = min(source.fraction, bits - source.integer)
        return FixedType(source.integer + fraction, source.integer, signed, Rounding.RND, Overflow.SAT)


@dataclass(eq=False, kw_only=True)
class TableActivation(Node):
    """A function of one variable read from a table: a smooth one, or any step function.

    Attributes:
        function: Name of the function.
        curve: The function, unless it is one of :data:`~kconvert.layers.curves.CURVES`.
        lookup: ``"nearest"``, ``"linear"`` or ``"auto"``, see :class:`~kconvert.layers.lookup.Lookup`.
        table_size: Entries of the table, a power of two; a step function takes no more than it needs.
        table_type: Type of an entry.
        steps: The function, where it is a step function; its entries are then exact wherever the table has enough of
            them, and a PrecisionWarning says where it has not.
    """

    function: str
    table_size: int = TABLE_SIZE
    table_type: FixedType | None = None
    steps: StepFunction | None = None
    curve: Curve | None = None
    lookup: str = "auto"

    roles: ClassVar[Mapping[str, str]] = {"table": "table_type", "result": "result_type"}
    tunables = frozenset({"table_size", "lookup"})
    template = "table_activation"
    kernel = "nnet_activation.h"
    pointwise = True
    absorbs = True
    narrows = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is None and self.curve is None:
            self.curve = CURVES[self.function]

    def choose_options(self, default: FixedType) -> None:
        """A function that fine types can follow gets more entries."""
        if self.steps is None:
            self.table_size = max(self.table_size, default_table_size(default))

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """Tables are finer than the default type by default."""
        return default_table_type(default) if role == "table" else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The result is an entry of the table, and what is added to it where the function follows a line."""
        self.table_type = self.table_type or default_table_type(default)
        if self.result_type is None and self.lines is not None:
            exact = self.in_type() * self.line_type + self.table_type
            self.result_type = narrowed(exact).with_(rounding=Rounding.RND, overflow=Overflow.SAT)
        self.result_type = self.result_type or self.table_type
        if self.steps is not None:
            self._warn_of_rounded_input(self.steps)

    def _warn_of_rounded_input(self, steps: StepFunction) -> None:
        source, index = self.in_type(), self.index_type
        if index.fraction >= source.fraction:
            return
        value, keeper = self.inputs[0], self.layer
        narrow = source.with_(width=source.integer + index.fraction, rounding=Rounding.RND, overflow=Overflow.SAT)
        remedies = [f"LayerName → {value.producer.layer} → Precision → result to {narrow}"]
        if value is not value.producer.output:  # it is a part of that layer, which sets its table's size
            remedies, keeper = [], value.producer.layer
        enough = 1 << steps.index_type(source, 1 << MAX_WIDTH).width
        if enough <= LARGEST_TABLE:
            remedies.append(f"LayerName → {keeper} → table_size to {enough}")
        remedy = f"; for exact ones set {', or '.join(remedies)}" if remedies else ""
        warnings.warn(
            f"layer {self.name!r}: its table of {self.table_size} entries rounds its input, {source}, to "
            f"{index.fraction} fraction bits, so that answers next to a step may be one step off{remedy}",
            PrecisionWarning,
            stacklevel=2,
        )

    @property
    def lines(self) -> tuple[float, float] | None:
        """Slopes of the straight lines the function follows above and below zero; None where it follows none."""
        return self.curve.lines if self.curve is not None and any(self.curve.lines) else None

    @property
    def line_type(self) -> FixedType:
        """Type of the slopes."""
        return exact_type(self.lines or 0.0)

    @property
    def values(self) -> Callable[[np.ndarray], np.ndarray]:
        """What the table holds: the function, without the lines it follows."""
        if self.steps is not None:
            return self.steps.values
        return self.curve.beside_lines if self.curve is not None else np.zeros_like

    @property
    def found(self) -> Lookup:
        """How the table is read."""
        wanted = self.lookup if self.steps is None else "nearest"
        return Lookup(self.index_type, self.in_type(), self.typed("table"), wanted)

    @property
    def index_type(self) -> FixedType:
        """Type that addresses the table."""
        if self.steps is not None:
            return self.steps.index_type(self.in_type(), self.table_size)
        step, reach = self.typed("table").step, 1.0
        ends = self.values(np.array([-64.0, 64.0]))
        while reach < 64 and np.abs(ends - self.values(np.array([-reach, reach]))).max() > step:
            reach *= 2
        return index_type(self.in_type(), reach, self.table_size, signed=True)

    def constants(self) -> dict[str, Constant]:
        """The table, and the slopes of its lines and of those that the function follows."""
        lines = {} if self.lines is None else {"line": Constant(np.array(self.lines), self.line_type)}
        return {**self.found.constants(self.values), **lines}

    def check(self) -> None:
        """The table's size must be a power of two."""
        check_table_size(self, self.table_size)


@dataclass(eq=False, kw_only=True)
class Softmax(Node):
    """``exp(x) / sum(exp(x))`` over an axis, by a table of exp and a table of reciprocals.

    ``stable`` looks up ``exp(x - max(x))``, right for inputs of any range. ``latency`` looks up ``exp(x)``, one
    comparison tree less, right while ``exp(x)`` fits ``exp_table_t``. ``argmax`` gives 1 to the (first) largest
    input and 0 to the others.

    The sum is scaled into [1, 2) by a shift before the reciprocal is looked up, so that one table serves any number
    of classes with the same relative precision.
    """

    implementation: str = "stable"
    axis: int = -1
    table_size: int = TABLE_SIZE
    lookup: str = "auto"
    exp_table_type: FixedType | None = None
    inv_table_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {
        "exp_table": "exp_table_type",
        "inv_table": "inv_table_type",
        "result": "result_type",
    }
    tunables = frozenset({"table_size", "lookup", "implementation"})
    template = "softmax"
    kernel = "nnet_softmax.h"
    pointwise = True
    absorbs = True
    narrows = True

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """Tables are finer than the default type by default."""
        return default_table_type(default) if role.endswith("table") else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The result has the type of an entry of the exp table."""
        self.exp_table_type = self.exp_table_type or default_table_type(default)
        self.inv_table_type = self.inv_table_type or default_table_type(default)
        self.result_type = self.result_type or self.exp_table_type

    @property
    def classes(self) -> int:
        """Size of the axis that sums to 1."""
        return self.output.shape[self.axis]

    @property
    def inner(self) -> int:
        """Distance of neighbouring classes in memory: elements of the axes behind theirs."""
        return math.prod(self.output.shape[self.axis :]) // self.classes

    def at_position(self) -> Self | None:
        """There is one if the classes are the channels."""
        return super().at_position() if self.inner == 1 and self.axis == -1 else None

    @property
    def positions(self) -> int:
        """How many times softmax is applied to one sample."""
        return self.output.size // self.classes

    @property
    def scratch(self) -> int:
        """The exponentials of one position."""
        return self.classes

    @property
    def difference_type(self) -> FixedType:
        """Exact type of max(x) - x."""
        source = self.in_type()
        return source - source

    @property
    def exp_index_type(self) -> FixedType:
        """Type that addresses the exp table: max(x) - x, or x itself for ``latency``."""
        exp = self.typed("exp_table")
        smallest = -math.log(exp.step / 2)  # exp(-smallest) rounds to nothing
        if self.implementation == "latency":
            reach = max(smallest, math.log(max(exp.max, 2.0)))
            return index_type(self.in_type(), reach, self.table_size, signed=True)
        return index_type(self.difference_type, max(smallest, 1.0), self.table_size, signed=False)

    @property
    def sum_type(self) -> FixedType:
        """Exact type of the sum of all exponentials."""
        exp = self.typed("exp_table")
        total = grow(exp, self.classes)
        return FixedType(total.width, total.integer, total.signed)

    @property
    def inv_index_type(self) -> FixedType:
        """Type that addresses the reciprocal table: the fraction of the sum scaled into [1, 2)."""
        bits = self.table_size.bit_length() - 1
        return FixedType(bits, 0, False, Rounding.RND, Overflow.SAT)

    @property
    def exp_found(self) -> Lookup:
        """How the table of exponentials is read."""
        argument = self.in_type() if self.implementation == "latency" else self.difference_type
        return Lookup(self.exp_index_type, argument, self.typed("exp_table"), self.lookup)

    @property
    def inv_found(self) -> Lookup:
        """How the table of reciprocals is read."""
        fraction = FixedType(max(self.sum_type.fraction, 1), 0, False)
        return Lookup(self.inv_index_type, fraction, self.typed("inv_table"), self.lookup)

    @property
    def shift_range(self) -> tuple[int, int]:
        """How far the sum may have to be shifted into [1, 2): (right, left) in bits."""
        right = max(self.sum_type.integer - 2, 0) if self.sum_type.signed else max(self.sum_type.integer - 1, 0)
        left = self.typed("exp_table").fraction if self.implementation == "latency" else 0
        return right, left

    @property
    def inverse_type(self) -> FixedType:
        """Exact type of 1 / sum: an entry of the reciprocal table after the shift back."""
        right, left = self.shift_range
        inv = self.typed("inv_table")
        return FixedType(inv.width + right + left, inv.integer + left, inv.signed)

    def constants(self) -> dict[str, Constant]:
        """The two tables; none for ``argmax``."""
        if self.implementation == "argmax":
            return {}
        sign = 1.0 if self.implementation == "latency" else -1.0
        return {
            **self.exp_found.constants(lambda x: np.exp(sign * x), "exp_table"),
            **self.inv_found.constants(lambda x: 1 / (1 + x), "inv_table"),
        }

    def check(self) -> None:
        """Refuse an unknown implementation, and an exp table that cannot hold exp(0) = 1."""
        check_table_size(self, self.table_size)
        if self.implementation not in SOFTMAX_IMPLEMENTATIONS:
            raise ConfigError(
                f"layer {self.name!r}: unknown softmax implementation {self.implementation!r}; "
                f"choose from {', '.join(SOFTMAX_IMPLEMENTATIONS)}"
            )
        for role in ("exp_table", "inv_table"):
            kind = getattr(self, self.roles[role])
            if kind is not None and kind.max < 1:
                raise ConfigError(f"layer {self.name!r}: {role} type {kind} cannot hold 1, which the table contains")
