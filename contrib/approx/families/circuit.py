"""A multiplier as a graph of integer operations, written once: evaluated with numpy, printed as C++ and as Verilog.

Every value carries the interval that holds it, so C++ never overflows an ``int`` and a wire of Verilog is as wide as it
has to be and no wider.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Value:
    """The result of one operation: an integer from `low` to `high`."""

    op: str
    args: tuple[Value, ...]
    low: int
    high: int
    name: str = ""

    @property
    def bits(self) -> int:
        """Width in two's complement."""
        return max(self.low.bit_length() if self.low >= 0 else (-self.low - 1).bit_length(), self.high.bit_length()) + 1

    def named(self, name: str) -> Value:
        """Return the same value, printed under a name of its own."""
        return replace(self, name=name)

    def __add__(self, other: Value | int) -> Value:
        return _without_zero(self, other) or _monotone("+", self, other, operator.add)

    def __sub__(self, other: Value | int) -> Value:
        return _monotone("-", self, other, operator.sub)

    def __rsub__(self, other: int) -> Value:
        return const(other) - self

    def __neg__(self) -> Value:
        return 0 - self

    def __mul__(self, other: Value | int) -> Value:
        return _monotone("*", self, other, operator.mul)

    def __lshift__(self, other: Value | int) -> Value:
        return self if other == 0 else _monotone("<<", self, other, operator.lshift)

    def __rshift__(self, other: Value | int) -> Value:
        return self if other == 0 else _monotone(">>", self, other, operator.rshift)

    def __lt__(self, other: Value | int) -> Value:
        return Value("<", (self, const(other)), 0, 1)

    def __ge__(self, other: Value | int) -> Value:
        return Value(">=", (self, const(other)), 0, 1)

    def is_zero(self) -> Value:
        """Return 1 where it is 0, else 0."""
        return Value("==", (self, const(0)), 0, 1)

    def __and__(self, other: Value | int) -> Value:
        return _bitwise("&", self, other)

    def __or__(self, other: Value | int) -> Value:
        return _without_zero(self, other) or _bitwise("|", self, other)

    def __xor__(self, other: Value | int) -> Value:
        return _bitwise("^", self, other)

    def bit(self, number: int) -> Value:
        """Return one bit of its two's complement."""
        return (self >> number) & 1


def const(value: Value | int) -> Value:
    """Return a number as a value; a value as it is."""
    return value if isinstance(value, Value) else Value(str(value), (), value, value)


def select(condition: Value, then: Value | int, otherwise: Value | int) -> Value:
    """Return `then` where the condition is not 0."""
    one, other = const(then), const(otherwise)
    low, high = min(one.low, other.low), max(one.high, other.high)
    return const(low) if low == high else Value("?", (condition, one, other), low, high)


def operands() -> tuple[Value, Value]:
    """Return x and y, from -128 to 127."""
    return Value("x", (), -128, 127), Value("y", (), -128, 127)


def _without_zero(one: Value, other: Value | int) -> Value | None:
    """The other one of two values if one is 0: the neutral element of + and |."""
    second = const(other)
    if second.low == second.high == 0:
        return one
    return second if one.low == one.high == 0 else None


def _monotone(op: str, one: Value, other: Value | int, function: Callable[[int, int], int]) -> Value:
    """An operation whose extremes are at the ends of the intervals."""
    second = const(other)
    ends = [function(a, b) for a, b in product((one.low, one.high), (second.low, second.high))]
    return Value(op, (one, second), min(ends), max(ends))


def _bitwise(op: str, one: Value, other: Value | int) -> Value:
    second = const(other)
    positive = [value.high for value in (one, second) if value.low >= 0]
    width = max(one.bits, second.bits) - 1
    if op == "&" and positive:
        return Value(op, (one, second), 0, min(positive)) if min(positive) else const(0)
    low = 0 if len(positive) == 2 else -(1 << width)
    return Value(op, (one, second), low, (1 << width) - 1)


def ordered(root: Value) -> list[Value]:
    """Return all values below `root` and itself, each once, after those it is made of."""
    seen: dict[int, Value] = {}

    def visit(value: Value) -> None:
        if id(value) not in seen:
            for arg in value.args:
                visit(arg)
            seen[id(value)] = value

    visit(root)
    return list(seen.values())


_NUMPY: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "<": operator.lt,
    ">=": operator.ge,
    "==": operator.eq,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "?": lambda c, a, b: np.where(c != 0, a, b),
}


def evaluate(root: Value, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the value at operands x and y, arrays of int64."""
    known: dict[int, Any] = {}
    for value in ordered(root):
        if value.args:
            known[id(value)] = np.asarray(_NUMPY[value.op](*(known[id(arg)] for arg in value.args))).astype(np.int64)
        else:
            known[id(value)] = {"x": x, "y": y}.get(value.op, np.int64(value.low))
    return np.broadcast_to(known[id(root)], x.shape)


# ***** C++ *****


def cpp_body(root: Value) -> str:
    """Return the body of ``int (int x, int y)``: what is used twice or has a name is a constant of its own."""
    uses = Counter(id(arg) for value in ordered(root) for arg in value.args)
    names = _Names()
    text: dict[int, str] = {}
    lines = []
    for value in ordered(root):
        term = _cpp_term(value, [text[id(arg)] for arg in value.args])
        if value is root:
            lines.append(f"    return {_bare(term)};\n")
        elif value.args and (value.name or uses[id(value)] > 1):
            text[id(value)] = names.new(value.name)
            lines.append(f"    const int {text[id(value)]} = {_bare(term)};\n")
        else:
            text[id(value)] = term
    return "".join(lines)


def _cpp_term(value: Value, args: list[str]) -> str:
    if not value.args:
        return value.op
    if value.op == "?":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    if value.op == "<<" and not value.args[1].args:  # C++14 does not define the shift of a negative number
        return f"({args[0]} * {1 << value.args[1].low})"
    if value.op == "-" and args[0] == "0":
        return f"(-{args[1]})"
    return f"({args[0]} {value.op} {args[1]})"


def _bare(term: str) -> str:
    """Without the parentheses around all of it."""
    return term[1:-1] if term.startswith("(") else term


class _Names:
    """Names that occur once."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def new(self, name: str) -> str:
        stem = name or "t"
        self._taken[stem] += 1
        return f"{stem}{self._taken[stem]}" if not name or self._taken[stem] > 1 else stem


# ***** Verilog *****


def verilog_module(root: Value, name: str) -> str:
    """Return a module of combinational logic: ``x`` and ``y`` of 8 bits in, ``p`` of 16 bits out, all signed.

    Every operation has a wire that holds all its results: what Verilog makes of the widths of a longer expression is
    no concern then. Products are arrays of partial products, so that all multipliers begin from the same one.
    """
    root = _with_arrays(root)
    names = _Names()
    text: dict[int, str] = {}
    lines = []
    for value in ordered(root):
        if not value.args:
            text[id(value)] = value.op if value.op in "xy" else _verilog_number(value.low)
            continue
        text[id(value)] = names.new(value.name)
        term = _verilog_term(value, [text[id(arg)] for arg in value.args])
        lines.append(f"    wire signed [{value.bits - 1}:0] {text[id(value)]} = {term};\n")
    ports = "input signed [7:0] x, input signed [7:0] y, output signed [15:0] p"
    return f"module {name}({ports});\n{''.join(lines)}    assign p = {text[id(root)]};\nendmodule\n"


def _with_arrays(root: Value) -> Value:
    made: dict[int, Value] = {}
    for value in ordered(root):
        args = tuple(made[id(arg)] for arg in value.args)
        if value.op == "*":
            array = _array(*sorted(args, key=lambda arg: -arg.bits))
            made[id(value)] = replace(array, low=value.low, high=value.high, name=value.name)
        else:
            made[id(value)] = replace(value, args=args)
    return made[id(root)]


def _array(wide: Value, narrow: Value) -> Value:
    """Return the product as a sum of one row a bit of `narrow`, whose sign bit counts negative."""
    total = const(0)
    top = narrow.bits - 1
    for number in range(top + (narrow.low < 0)):
        row = select(narrow.bit(number), wide, 0) << number
        total = total + row if number < top else total - row
    return total


def _verilog_number(value: int) -> str:
    # one bit to spare: the minus of a negative number is an operation on what follows
    width = max(abs(value).bit_length(), 1) + 1
    return f"{'-' if value < 0 else ''}{width}'sd{abs(value)}"


def _verilog_term(value: Value, args: list[str]) -> str:
    if value.op == "?":
        return f"|{args[0]} ? {args[1]} : {args[2]}"
    op = {"<<": "<<<", ">>": ">>>"}.get(value.op, value.op)
    return f"{args[0]} {op} {args[1]}"
