"""Element-wise functions as small expressions: composed by the rewrites, run by numpy, emitted as NNIL byte code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu import nnil
from kconvert.kpu.nnil import Instruction, Op

Array = npt.NDArray[Any]

MAX_SIZE = 128  # operations of one function; beyond it two functions stay two
MAX_DEPTH = nnil.STACK - 4  # of nesting: an operand on each level can wait on the stack
_ARITY = {Op.X: 0, Op.CONSTANT: 0, Op.CLAMP: 3}


@dataclass(frozen=True, slots=True)
class Expr:
    """A node of an expression: x, a constant, or an operation of NNIL on other expressions."""

    op: Op
    args: tuple[Expr, ...] = ()
    value: float = 0.0

    def __add__(self, other: Expr | float) -> Expr:
        return Expr(Op.ADD, (self, lift(other)))

    def __sub__(self, other: Expr | float) -> Expr:
        return Expr(Op.SUB, (self, lift(other)))

    def __mul__(self, other: Expr | float) -> Expr:
        return Expr(Op.MUL, (self, lift(other)))

    def __truediv__(self, other: Expr | float) -> Expr:
        return Expr(Op.DIV, (self, lift(other)))

    @property
    def size(self) -> int:
        """Number of operations."""
        return 1 + sum(a.size for a in self.args)

    @property
    def depth(self) -> int:
        """Nesting."""
        return 1 + max((a.depth for a in self.args), default=0)

    def of(self, inner: Expr) -> Expr:
        """Return this function applied to another."""
        if self.op is Op.X:
            return inner
        return Expr(self.op, tuple(a.of(inner) for a in self.args), self.value)

    def __call__(self, x: Array) -> Array:
        """Evaluate in float32, as the runtime does."""
        with np.errstate(all="ignore"):
            return np.broadcast_to(self._evaluate(np.asarray(x, np.float32)), np.shape(x)).astype(np.float32)

    def _evaluate(self, x: Array) -> Array:
        if self.op is Op.X:
            return x
        if self.op is Op.CONSTANT:
            return np.asarray(self.value, np.float32)
        result: Array = _NUMPY[self.op](*(a._evaluate(x) for a in self.args))
        return result

    def encode(self) -> bytes:
        """Return the byte code."""
        return nnil.encode(list(self._instructions()))

    def _instructions(self) -> Iterator[Instruction]:
        for arg in self.args:
            yield from arg._instructions()
        yield Instruction(self.op, self.value)

    @property
    def clamp(self) -> tuple[float, float] | None:
        """The bounds (low, high) if this function does nothing but to clamp x."""
        if self.op is not Op.CLAMP or self.args[0].op is not Op.X:
            return None
        return self.args[1].value, self.args[2].value

    @property
    def acceptable(self) -> bool:
        """Whether the byte code stays small and within the stack of the runtime."""
        return self.depth <= MAX_DEPTH and self.size <= MAX_SIZE


_ONE = np.float32(1)
_NUMPY: dict[Op, Any] = {
    Op.ABS: np.abs,
    Op.CEIL: np.ceil,
    Op.COS: np.cos,
    Op.EXP: np.exp,
    Op.FLOOR: np.floor,
    Op.LOG: np.log,
    Op.NEG: np.negative,
    Op.RSQRT: lambda x: _ONE / np.sqrt(x),
    Op.SIN: np.sin,
    Op.SQUARE: np.square,
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.MIN: np.minimum,
    Op.MAX: np.maximum,
    Op.CLAMP: lambda x, low, high: np.minimum(np.maximum(x, low), high),
}

X = Expr(Op.X)


def lift(value: Expr | float) -> Expr:
    """Return a number as a constant function."""
    return value if isinstance(value, Expr) else Expr(Op.CONSTANT, (), float(np.float32(value)))


def unary(op: Op, x: Expr = X) -> Expr:
    """Return an operation on one number."""
    return Expr(op, (x,))


def binary(op: Op, a: Expr | float, b: Expr | float) -> Expr:
    """Return an operation on two numbers."""
    return Expr(op, (lift(a), lift(b)))


def clamp(low: float, high: float, x: Expr = X) -> Expr:
    """Return x limited to low...high."""
    return Expr(Op.CLAMP, (x, lift(low), lift(high)))


# ***** the activations of TFLite *****

_LARGEST = float(np.finfo(np.float32).max)


def sigmoid(x: Expr = X) -> Expr:
    """1 / (1 + exp(-x))."""
    return lift(1) / (lift(1) + unary(Op.EXP, unary(Op.NEG, x)))


def tanh(x: Expr = X) -> Expr:
    """1 - 2 / (exp(2x) + 1); right to both ends, where exp is 0 or infinite."""
    return lift(1) - lift(2) / (unary(Op.EXP, x * 2.0) + 1.0)


def leaky_relu(alpha: float) -> Expr:
    """x above 0, alpha * x below, for any alpha."""
    if alpha <= 1:
        return binary(Op.MAX, X, X * alpha)
    return binary(Op.MIN, X, X * alpha)


def elu(alpha: float = 1.0) -> Expr:
    """x above 0, alpha * (exp(x) - 1) below."""
    below = (unary(Op.EXP, binary(Op.MIN, X, 0.0)) - 1.0) * alpha
    return binary(Op.MAX, X, 0.0) + below


def hard_swish() -> Expr:
    """x * relu6(x + 3) / 6."""
    return X * clamp(0.0, 6.0, X + 3.0) * (1 / 6)


def gelu_tanh() -> Expr:
    """The tanh approximation of GELU, within 0.0005 of the exact one."""
    inner = (X + X * unary(Op.SQUARE) * 0.044715) * float(np.sqrt(2 / np.pi))
    return X * 0.5 * (tanh(inner) + 1.0)


def sqrt() -> Expr:
    """The square root as x / sqrt(x), 0 at 0."""
    return X * unary(Op.RSQRT, binary(Op.MAX, X, 1e-30))


RELU = clamp(0.0, _LARGEST)
RELU6 = clamp(0.0, 6.0)
RELU_N1_TO_1 = clamp(-1.0, 1.0)
RELU_0_TO_1 = clamp(0.0, 1.0)
