"""What all records have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

from kconvert.errors import KModelError
from kconvert.kpu.k210 import map_bytes
from kconvert.kpu.wire import (
    Codec,
    DataType,
    MemoryRange,
    Padding,
    Reader,
    Writer,
)

Known = Mapping[str, Any]
F, B = DataType.FLOAT32, DataType.UINT8


class Tensor(NamedTuple):
    """What an operation reads or writes at a memory range."""

    what: str
    range: MemoryRange
    shape: tuple[int, ...]
    datatype: DataType
    in_kpu: bool = False  # in KPU memory, and its layout

    @property
    def size(self) -> int:
        """Bytes that are read or written."""
        if self.in_kpu:
            batch, channels, height, width = self.shape
            return batch * map_bytes(channels, height, width)
        return math.prod(self.shape) * self.datatype.itemsize


def require(fits: bool, problem: str) -> None:
    """Raise a KModelError that says the problem, unless it `fits`."""
    if not fits:
        raise KModelError(problem)


def stored(codec: Codec, **options: Any) -> Any:
    """Declare a field of a record."""
    return dataclasses.field(metadata={"codec": codec}, **options)


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all operations."""

    opcode: ClassVar[int] = -1
    on_kpu: ClassVar[bool] = False

    @classmethod
    def read(cls, source: Reader) -> Node:
        """Read the fields of a body.

        Raises:
            KModelError: the body is too short, or holds what the format does not have.
        """
        known: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            known[field.name] = field.metadata["codec"].read(source, known, field.name)
        return cls(**known)

    def write(self, out: Writer) -> None:
        """Append the fields of the body, without the padding behind it.

        Raises:
            KModelError: a value does not fit its field, or an array has another length than the fields say.
        """
        known = vars(self)
        for field in dataclasses.fields(self):
            field.metadata["codec"].write(out, known[field.name], known, f"{type(self).__name__}.{field.name}")

    def reads(self) -> tuple[Tensor, ...]:
        """Return what the operation reads."""
        raise NotImplementedError

    def writes(self) -> tuple[Tensor, ...]:
        """Return what the operation writes; the first is its result."""
        raise NotImplementedError

    def check(self) -> None:
        """Check what does not concern memory.

        Raises:
            KModelError: a value makes no sense; the message does not say which node this is.
        """

    @property
    def work(self) -> int:
        """Elementary steps, as multiply-accumulates or elements."""
        return sum(math.prod(t.shape) for t in (*self.reads(), *self.writes()))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Node) and self._bytes() == other._bytes()

    def __hash__(self) -> int:
        return hash((self.opcode, self._bytes()))

    def _bytes(self) -> bytes:
        out = Writer()
        self.write(out)
        return bytes(out.data)


NODES: dict[int, type[Node]] = {}
N = TypeVar("N", bound=type[Node])


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(stored,))
def operation(opcode: int) -> Callable[[N], N]:
    """Register a record under its code; the decorated class becomes a frozen dataclass."""

    def register(cls: N) -> N:
        cls.opcode = opcode
        NODES[opcode] = dataclass(frozen=True, eq=False)(cls)
        return cls

    return register


def flat(what: str, where: MemoryRange, datatype: DataType) -> Tensor:
    """Return a tensor of which only the number of elements is known."""
    return Tensor(what, where, (where.size // datatype.itemsize,), datatype)


def windows(size: int, pad: Padding, kernel: int, stride: int, dilation: int) -> int:
    """Return how many places a filter has along one dimension, 0 or less if it does not fit."""
    return (size + pad.before + pad.after - dilation * (kernel - 1) - 1) // stride + 1


def positive(node: Node, *names: str) -> None:
    """Refuse fields that are not positive."""
    for name in names:
        value = getattr(node, name)
        least = min(value) if isinstance(value, tuple) else value
        require(least >= 1, f"{name} {value} is not positive")


def shifts_in_range(node: Node, *names: str) -> None:
    """Refuse fields by which 64 bits cannot be shifted."""
    for name in names:
        require(0 <= getattr(node, name) <= 62, f"{name} {getattr(node, name)} is outside 0 to 62")
