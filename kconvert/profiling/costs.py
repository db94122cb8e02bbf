"""What a model costs in hardware, estimated from its graph alone; no vendor tool is asked.

The rules are simple, so that a reader can check them. They are for comparing settings with each other; what the tool
makes of a model differs.

* **multiplications**: those of one sample. A weight that is stored as 0 or plus or minus a power of two needs none
  where every product has a multiplier of its own (strategy ``Latency``, reuse factor 1); one of one bit never does.
* **multipliers**: multiplications of one application of a matrix, divided by the reuse factor and rounded up; a layer
  that applies its matrix at several positions uses the same ones for all.
* **DSPs**: a multiplier of operands a and b bits wide takes none where the narrower has fewer than :data:`LUT_BITS`
  bits (the tools make it of LUTs); else ceil((a - 1) / 26) * ceil((b - 1) / 17), or with a and b exchanged if that is
  fewer: a DSP48E2 multiplies 27 by 18 bits, signed (AMD UG579).
* **weight bits, table bits**: sizes of the arrays times the width of their type.
* **interval**: clock cycles until the next sample may enter. A layer takes its reuse factor times the number of
  positions its matrix is applied at, a recurrent one all cycles of its steps. Where all layers share one pipeline or
  run side by side, the slowest sets the pace.
* **latency**: clock cycles for one sample; that of the model is along its longest path, since branches run side by
  side. A sum of n products takes ceil(log2 n) cycles of additions after the last product has started, a step of a
  recurrent layer two more for activation and state, a table two, any other layer one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kconvert.firmware import storage_of
from kconvert.layers import (
    BatchNormalization,
    Contraction,
    Conv,
    Dense,
    Input,
    Multiply,
    Node,
    Recurrent,
    Value,
    Weighted,
)
from kconvert.model import HLSModel
from kconvert.tables import html_table, text_table

LUT_BITS = 10
"""Operands of fewer bits are multiplied by LUTs."""

TITLES = (
    *("layer", "operation", "multiplications", "multipliers", "DSPs", "weight bits", "table bits"),
    *("interval", "latency"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The estimate for one layer, by the rules above; interval and latency in clock cycles."""

    layer: str
    operation: str
    multiplications: int = 0
    multipliers: int = 0
    dsps: int = 0
    weight_bits: int = 0
    table_bits: int = 0
    interval: int = 1
    latency: int = 1


class Estimate(Sequence[Cost]):
    """The estimate for every layer; ``total`` sums it up. Printing it gives a table, a notebook shows one."""

    def __init__(self, costs: Sequence[Cost], latency: int) -> None:
        self._costs = list(costs)
        self._latency = latency

    def __len__(self) -> int:
        return len(self._costs)

    def __getitem__(self, index: Any) -> Any:
        return self._costs[index]

    @property
    def total(self) -> Cost:
        """The whole model: sums, the interval of the slowest layer, the latency of the longest path."""
        names = ("multiplications", "multipliers", "dsps", "weight_bits", "table_bits")
        sums: dict[str, int] = {name: sum(getattr(cost, name) for cost in self) for name in names}
        interval = max((cost.interval for cost in self), default=1)
        return Cost("total", "estimate", interval=interval, latency=self._latency, **sums)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each layer and one for the total."""
        return [asdict(cost) for cost in (*self, self.total)]

    def __str__(self) -> str:
        return "Estimate, not a report of a tool\n" + text_table(TITLES, [tuple(row.values()) for row in self.table])

    def _repr_html_(self) -> str:
        return html_table(TITLES, [tuple(row.values()) for row in self.table], "Estimate, not a report of a tool")


def estimate(hls_model: HLSModel) -> Estimate:
    """Return what every layer of a model costs, by the rules at the top of this module."""
    costs: list[Cost] = []
    ready: dict[Value, int] = {}  # the cycle in which a value is there
    for node in hls_model:
        cycle = max((ready[value] for value in node.inputs), default=0)
        if not isinstance(node, Input) and storage_of(node.output) is node.output:
            costs.append(_cost(node))
            cycle += costs[-1].latency
        ready[node.output] = cycle
    return Estimate(costs, max(ready.values(), default=0))


def _cost(node: Node) -> Cost:
    weights, tables = 0, 0
    for role, constant in node.constants().items():
        bits = constant.values.size * (1 if constant.one_bit else constant.type.width)
        if role in node.roles and not role.endswith("table"):
            weights += bits
        else:
            tables += bits
    done, used, dsps = _products(node)
    interval, latency = _cycles(node, bool(tables))
    return Cost(node.name, type(node).__name__, done, used, dsps, weights, tables, interval, latency)


def _products(node: Node) -> tuple[int, int, int]:
    """Return multiplications, multipliers and DSPs."""
    if isinstance(node, Weighted):
        if node.one_bit:
            return 0, 0, 0
        reuse = node.reuse_factor
        products = node.fan_in * node.fan_out
        if reuse == 1 and node.strategy != "Resource":
            products = _not_shifts(node.constants()["weight"].raw)
        used = -(-products // reuse)
        return products * _positions(node), used, used * _dsps(node.in_type().width, node.typed("weight").width)
    if isinstance(node, Recurrent):
        over_input, *over_state = [m.fan_in * m.fan_out for m in node.matrices]
        first, rest = -(-over_input // node.reuse_factor), sum(-(-n // node.reuse_factor) for n in over_state)
        dsps = first * _dsps(node.in_type().width, node.typed("weight").width)
        dsps += rest * _dsps(node.typed("state").width, node.typed("recurrent_weight").width)
        return (over_input + sum(over_state)) * node.steps, first + rest, dsps
    if isinstance(node, Contraction):
        products = node.fan_in * _dsps(node.in_type(0).width, node.in_type(1).width)
        return node.fan_in * node.output.size, node.fan_in, products
    if isinstance(node, BatchNormalization):
        size = node.output.size
        return size, size, size * _dsps(node.in_type().width, node.typed("scale").width)
    if isinstance(node, Multiply):
        size = node.output.size * (len(node.inputs) - 1)
        return size, size, size * _dsps(node.in_type(0).width, node.in_type(1).width)
    return 0, 0, 0


def _not_shifts(raw: Any) -> int:
    """Return how many integers are neither 0 nor plus or minus a power of two."""
    sizes = np.abs(np.asarray(raw, dtype=np.int64))
    return int(np.count_nonzero(sizes & (sizes - 1)))


def _dsps(a: int, b: int) -> int:
    if min(a, b) < LUT_BITS:
        return 0
    return min(math.ceil((x - 1) / 26) * math.ceil((y - 1) / 17) for x, y in ((a, b), (b, a)))


def _positions(node: Weighted) -> int:
    """Return how many times the matrix is applied to one sample."""
    if isinstance(node, Dense):
        return node.positions
    height, width, _ = node.image_out if isinstance(node, Conv) else (1, 1, 1)
    return height * width


def _cycles(node: Node, has_table: bool) -> tuple[int, int]:
    """Return interval and latency."""
    if isinstance(node, Weighted):
        interval = node.reuse_factor * _positions(node)
        return interval, interval + _adder_levels(node.fan_in)
    if isinstance(node, Contraction):  # one output after the other
        return node.output.size, node.output.size + _adder_levels(node.fan_in)
    if isinstance(node, Recurrent):
        sums = max(_adder_levels(m.fan_in) for m in node.matrices)
        per_step = (node.reuse_factor + sums) * (len(node.matrices) - 1) + 2  # activation and new state
        return per_step * node.steps, per_step * node.steps
    return 1, 1 + has_table


def _adder_levels(products: int) -> int:
    return math.ceil(math.log2(products)) if products > 1 else 0
