"""How the values of a kmodel are stored: little endian, no names, every field found by what stands before it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from kconvert.errors import KModelError

Array = npt.NDArray[Any]
E = TypeVar("E", bound=IntEnum)


BODY_ALIGNMENT = 8  # bytes; of the end of a node's body in the file


class Memory(IntEnum):
    """Where a tensor lies."""

    CONST = 0  # the constant pool of the file
    MAIN = 1  # working memory
    KPU = 2  # the KPU's own memory


class DataType(IntEnum):
    """What a tensor holds."""

    FLOAT32 = 0
    UINT8 = 1

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 4 if self is DataType.FLOAT32 else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of numpy."""
        return np.dtype("<f4" if self is DataType.FLOAT32 else "u1")


class MemoryRange(NamedTuple):
    """`size` bytes at byte `start` of a memory."""

    memory: Memory
    datatype: DataType
    start: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.start + self.size


class Padding(NamedTuple):
    """Elements added in front of and behind a dimension; negative ones are cut off."""

    before: int
    after: int


class FloatRange(NamedTuple):
    """A clamp; the default lets every number pass."""

    low: float = -float(np.finfo(np.float32).max)
    high: float = float(np.finfo(np.float32).max)


class QuantParam(NamedTuple):
    """q = round(x * scale + zero_point)."""

    zero_point: int
    scale: float


class Scalar(NamedTuple):
    """One element with its type."""

    datatype: DataType
    raw: bytes  # 4 bytes


Shape = tuple[int, int, int, int]
NO_RANGE = MemoryRange(Memory.CONST, DataType.FLOAT32, 0, 0)


class Reader:
    """Walks over the bytes of a file and refuses to leave them."""

    def __init__(self, data: bytes, position: int, end: int, where: str) -> None:
        self.data, self.position, self.end, self.where = data, position, end, where

    def take(self, count: int, what: str) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.end - self.position:
            raise KModelError(
                f"{self.where}: {what} takes {count} bytes at byte {self.position}, and there are "
                f"{self.end - self.position}; the file is cut off or damaged"
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        """Return the next numbers, in the notation of :mod:`struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))

    def number(self, form: str, what: str) -> Any:
        """Return the next number; one of floating point has to be one."""
        (value,) = self.numbers(form, what)
        if value != value:
            raise KModelError(f"{self.where}: {what} at byte {self.position - 4} is not a number")
        return value

    def choice(self, kind: type[E], what: str) -> E:
        """Return the next u32 as a member of an enumeration."""
        value = self.number("I", what)
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(f"{k.value} {k.name.lower()}" for k in kind)
            raise KModelError(f"{self.where}: {what} {value} at byte {self.position - 4} is none of {known}") from None

    def array(self, dtype: str, count: int, what: str) -> Array:
        """Return the next `count` numbers as an array that cannot be written to."""
        if count < 0:
            raise KModelError(f"{self.where}: {what} would have {count} elements")
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, what), dtype)

    def align(self, multiple: int, what: str) -> None:
        """Go on to the next position that is a multiple of `multiple`."""
        self.take(-self.position % multiple, what)


class Writer:
    """Bytes of a file in the making, from its start."""

    def __init__(self) -> None:
        self.data = bytearray()

    def numbers(self, form: str, *values: Any, what: str) -> None:
        """Append numbers, in the notation of :mod:`struct`."""
        try:
            self.data += struct.pack("<" + form, *values)
        except (struct.error, OverflowError) as error:
            raise KModelError(f"{what} = {', '.join(map(str, values))} cannot be stored: {error}") from None

    def align(self, multiple: int) -> int:
        """Append zeros up to a multiple of `multiple`; return how many."""
        gap = -len(self.data) % multiple
        self.data += bytes(gap)
        return gap


Known = Mapping[str, Any]  # the fields before the one that is read or written


@dataclass(frozen=True)
class Codec:
    """How one field is read and written; the last argument of both is its name, for messages."""

    read: Callable[[Reader, Known, str], Any]
    write: Callable[[Writer, Any, Known, str], None]


def _number(form: str) -> Codec:
    return Codec(
        lambda source, known, what: source.number(form, what),
        lambda out, value, known, what: out.numbers(form, value, what=what),
    )


def _group(form: str, make: Callable[..., Any] = lambda *values: values) -> Codec:
    return Codec(
        lambda source, known, what: make(*(source.number(f, what) for f in form)),
        lambda out, value, known, what: out.numbers(form, *value, what=what),
    )


def choice(kind: type[IntEnum]) -> Codec:
    """A member of an enumeration."""
    return Codec(
        lambda source, known, what: source.choice(kind, what),
        lambda out, value, known, what: out.numbers("I", value, what=what),
    )


def array(dtype: str, count: Callable[[Known], int]) -> Codec:
    """An array of as many elements as the fields before it say; in a record it is flat."""

    def write(out: Writer, value: Array, known: Known, what: str) -> None:
        if np.size(value) != count(known):
            raise KModelError(f"{what} has {np.size(value)} elements, and {count(known)} belong there")
        out.data += np.asarray(value, dtype=dtype).tobytes()

    return Codec(lambda source, known, what: source.array(dtype, count(known), what), write)


def ranges(count: str) -> Codec:
    """As many memory ranges as the field `count` says."""

    def read(source: Reader, known: Known, what: str) -> tuple[MemoryRange, ...]:
        if known[count] * 16 > source.end - source.position:
            source.take(known[count] * 16, what)  # refuses before a list of that length is made
        return tuple(RANGE.read(source, known, f"{what} {i}") for i in range(known[count]))

    def write(out: Writer, value: tuple[MemoryRange, ...], known: Known, what: str) -> None:
        if len(value) != known[count]:
            raise KModelError(f"{what} has {len(value)} entries, and {count} is {known[count]}")
        for entry in value:
            RANGE.write(out, entry, known, what)

    return Codec(read, write)


def _read_range(source: Reader, known: Known, what: str) -> MemoryRange:
    memory = source.choice(Memory, f"memory type of {what}")
    datatype = source.choice(DataType, f"data type of {what}")
    return MemoryRange(memory, datatype, *source.numbers("II", what))


def _read_rest(source: Reader, known: Known, what: str) -> bytes:
    rest = source.take(source.end - source.position, what)
    padding = min(len(rest) - len(rest.rstrip(b"\0")), BODY_ALIGNMENT - 1)
    source.position -= padding
    return rest[: len(rest) - padding]


def _write_rest(out: Writer, value: bytes, known: Known, what: str) -> None:
    out.data += value


RANGE = Codec(_read_range, lambda out, value, known, what: out.numbers("IIII", *value, what=what))
I32 = _number("i")
U32 = _number("I")
U8 = _number("B")
F32 = _number("f")
SHAPE = _group("iiii")
PADDING = _group("ii", Padding)
FLOAT_RANGE = _group("ff", FloatRange)
QUANT_PARAM = _group("if", QuantParam)
SCALAR = Codec(
    lambda source, known, what: Scalar(source.choice(DataType, what), source.take(4, what)),
    lambda out, value, known, what: out.numbers("I4s", *value, what=what),
)
REST = Codec(_read_rest, _write_rest)  # up to the end of the body, without what can be its padding
