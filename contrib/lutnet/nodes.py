"""Nodes of the intermediate representation for look-up tables, wiring and counting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, GraphError
from kconvert.layers import Constant, Node, Thresholds, Value
from kconvert.types import FixedType, exact_type, grow

BIT = FixedType(1, 1, signed=False)
MOST_INPUTS = 6
STYLES = ("shift", "lutram", "index", "class", "macro")
"""How a node is written in the C++ for synthesis; see docs/lutnet_hardware.md."""
TABLE_BITS = 12
"""Widest sum that is scaled by a table."""


@dataclass(eq=False, kw_only=True)
class Luts(Node):
    """A layer of look-up tables: ``y[n] = bit a of tables[n]``, bit i of a being ``x[connections[n, i]]``.

    Attributes:
        tables: uint64 [units]; bits from ``2 ** inputs`` up are 0.
        connections: For every unit the elements of the flattened input that it reads, [units, inputs].
        shape: Shape of the output; its size is the number of units.
        lut_style: One of :data:`STYLES`.
    """

    tables: npt.NDArray[np.uint64]
    connections: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    lut_style: str = "shift"

    template = "lut"
    kernel = "nnet_lut.h"
    chooses = True
    tunables = frozenset({"lut_style"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tables = np.asarray(self.tables, dtype=np.uint64)
        self.connections = np.asarray(self.connections, dtype=np.int64)
        units, found = len(self.tables), self.connections.shape
        if not units or self.tables.ndim != 1 or len(found) != 2 or found[0] != units or math.prod(self.shape) != units:
            raise GraphError(
                f"layer {self.name!r}: tables {self.tables.shape} and connections {found} do not make {self.shape}"
            )
        if not 1 <= self.fan_in <= MOST_INPUTS:
            raise GraphError(f"layer {self.name!r}: tables of {self.fan_in} inputs; 1 to {MOST_INPUTS} are possible")
        if self.fan_in < MOST_INPUTS and (self.tables >> np.uint64(1 << self.fan_in)).any():
            raise GraphError(f"layer {self.name!r}: a table has more than {1 << self.fan_in} bits")

    @property
    def fan_in(self) -> int:
        """Inputs of a table."""
        return int(self.connections.shape[1])

    @property
    def units(self) -> int:
        """Number of tables."""
        return len(self.tables)

    @property
    def bits(self) -> int:
        """Entries of a table."""
        return 1 << self.fan_in

    @property
    def rows(self) -> Iterator[tuple[str, list[int], list[int]]]:
        """Every table as a hexadecimal C++ number, its entries from address 0 on, and what its inputs are wired to."""
        digits = max(self.bits // 4, 1)
        for table, wires in zip(self.tables.tolist(), self.connections.tolist(), strict=True):
            yield f"0x{table:0{digits}x}ULL", [table >> a & 1 for a in range(self.bits)], wires

    @property
    def on_planes(self) -> bool:
        """It is logic on bits."""
        return True

    @property
    def scratch(self) -> int:
        """Where it is called with a pack, planes of its input and output: of the 512 bytes for an element 64 each."""
        return -(-(self.inputs[0].size + self.units) // 8)

    def output_shape(self) -> tuple[int, ...]:
        """The shape it was made for, if every connection is to an element of the input."""
        size = self.inputs[0].size
        if self.connections.min() < 0 or self.connections.max() >= size:
            raise ValueError(f"connections {self.connections.min()} to {self.connections.max()} of {size} inputs")
        return self.shape

    def _result_may_stay_wide(self) -> bool:
        return True  # one bit

    def infer_types(self, default: FixedType) -> None:
        """Bits in, bits out."""
        source = self.in_type()
        if not is_bit(source):
            raise ConfigError(
                f"layer {self.name!r} reads bits, and {self.inputs[0].producer.name!r} makes {source}; take the result "
                f"precision of {self.inputs[0].producer.name!r} out of the settings"
            )
        self.result_type = self.result_type or BIT
        if not is_bit(self.result_type):
            raise ConfigError(f"layer {self.name!r} makes bits: its result is ap_uint<1>, not {self.result_type}")

    def constants(self) -> dict[str, Constant]:
        """The tables, written for synthesis in the style chosen, and the wiring."""
        kind = FixedType(self.bits, self.bits, signed=False)
        return {
            "table": Constant(
                self.tables.astype(np.float64),
                kind,
                exact=self.tables.astype(kind.raw_dtype),
                template="layers/lut_tables.h.j2",
            ),
            "connection": wiring(self.connections, self.inputs[0].size, "layers/lut_wires.h.j2"),
        }


@dataclass(eq=False, kw_only=True)
class Wires(Node):
    """Wiring: ``y[i] = x[index[i]]`` over the flattened input, in a shape of its own."""

    index: npt.NDArray[np.int64]
    shape: tuple[int, ...]

    template = "wires"
    kernel = "nnet_lut.h"
    keeps_values = True

    def output_shape(self) -> tuple[int, ...]:
        """The shape it was made for, if every index is that of an element of the input."""
        if self.index.size != math.prod(self.shape) or self.index.min() < 0 or self.index.max() >= self.inputs[0].size:
            raise ValueError(
                f"an index {self.index.shape} of {self.inputs[0].size} elements does not make {self.shape}"
            )
        return self.shape

    @property
    def on_planes(self) -> bool:
        """Bits may be moved as planes."""
        return is_bit(self.in_type()) and is_bit(self.typed("result"))

    def passes_on(self) -> bool:
        """Wires are as narrow as their readers make them."""
        return all(user.absorbs or user.passes_on() for user in self.output.users)

    def constants(self) -> dict[str, Constant]:
        """The index."""
        return {"index": wiring(self.index, self.inputs[0].size)}


@dataclass(eq=False, kw_only=True)
class GroupSum(Node):
    """Sums over groups of the last axis, times one factor: ``y[..., g] = scale * sum of x of group g``.

    A factor other than 1 is applied by a table with one entry for every sum there can be, each the correctly rounded
    result: nothing is multiplied.

    Attributes:
        groups: Number of groups; it divides the size of the last axis.
        strided: Group g is the elements g, g + groups, ... if true, and consecutive ones if false.
        scale: The factor.
    """

    groups: int
    strided: bool
    scale: float = 1.0
    accum_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"accum": "accum_type", "result": "result_type"}
    template = "group_sum"
    kernel = "nnet_lut.h"

    @property
    def count(self) -> int:
        """Elements of a group."""
        return self.inputs[0].shape[-1] // self.groups

    def output_shape(self) -> tuple[int, ...]:
        """One sum for each group."""
        *frames, size = self.inputs[0].shape
        if self.groups < 1 or size % self.groups:
            raise ValueError(f"{size} elements do not make {self.groups} groups of one size")
        return (*frames, self.groups)

    def infer_types(self, default: FixedType) -> None:
        """The sum is exact; a result left open holds every level, to 32 bits."""
        self.accum_type = self.accum_type or self.lossless(grow(self.in_type(), self.count), "accum")
        if self.scale != 1 and self.accum_type.width > TABLE_BITS:
            raise ConfigError(
                f"layer {self.name!r}: sums of {self.accum_type} are too many for a table (at most {TABLE_BITS} bits); "
                f"give {self.inputs[0].producer.name!r} a result precision with fewer bits"
            )
        if self.result_type is None:
            self.result_type = self.accum_type if self.scale == 1 else exact_type(self._reachable())

    def _reachable(self) -> npt.NDArray[np.float64]:
        source, step = self.in_type(), self.in_type().step
        lowest, highest = (round(v * self.count / step) for v in (source.min, source.max))
        return np.asarray(np.arange(lowest, highest + 1) * step * self.scale, np.float64)

    def constants(self) -> dict[str, Constant]:
        """The scaled value of every sum, by the bits of the sum."""
        if self.scale == 1:
            return {}
        kind = self.typed("accum")
        bits = np.arange(1 << kind.width)
        raw = np.where(bits > kind.raw_max, bits - (1 << kind.width), bits)
        # what no sum reaches must not count as a value that does not fit
        levels = self._reachable()
        return {
            "level": Constant(
                np.clip(kind.from_raw(raw) * self.scale, levels.min(), levels.max()), self.typed("result")
            )
        }


def wiring(index: npt.NDArray[np.int64], size: int, template: str | None = None) -> Constant:
    """Return the constant of an index into `size` elements."""
    width = max(size - 1, 1).bit_length()
    return Constant(index, FixedType(width, width, signed=False), template=template)


def is_bit(kind: FixedType) -> bool:
    """Whether the values of a type are 0 and 1."""
    return (kind.width, kind.integer, kind.signed) == (1, 1, False)


def only_bits(value: Value) -> bool:
    """Whether every element of a tensor is 0 or 1, whatever the model is given."""
    node = value.producer
    if isinstance(node, Luts):
        return True
    if isinstance(node, Thresholds):
        return bool(np.isin(node.levels, (0.0, 1.0)).all())
    return bool(node.inputs) and node.keeps_values and all(only_bits(v) for v in node.inputs)
