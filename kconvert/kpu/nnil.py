"""NNIL: the byte code of element-wise functions, a stack machine on float32."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from kconvert.errors import KModelError

STACK = 64


class Op(IntEnum):
    """What an instruction does; of two numbers the second is on top of the stack."""

    NOP = 0x00
    DUP = 0x01
    POP = 0x02
    X = 0x03
    ZERO = 0x04
    ONE = 0x05
    CONSTANT = 0x06  # 4 bytes follow
    ABS = 0x20
    CEIL = 0x21
    COS = 0x22
    EXP = 0x23
    FLOOR = 0x24
    LOG = 0x25
    NEG = 0x26
    RSQRT = 0x27
    SIN = 0x28
    SQUARE = 0x29
    ADD = 0x40
    SUB = 0x41
    MUL = 0x42
    DIV = 0x43
    MIN = 0x44
    MAX = 0x45
    CLAMP = 0x80  # of value, low, high
    RETURN = 0xA0


class Instruction(NamedTuple):
    """One instruction; `value` is that of a constant."""

    op: Op
    value: float = 0.0


def _needs(op: Op) -> int:
    """How many numbers have to be on the stack."""
    if op is Op.CLAMP:
        return 3
    if op >= Op.ADD and op <= Op.MAX:
        return 2
    return 0 if op in (Op.NOP, Op.X, Op.ZERO, Op.ONE, Op.CONSTANT) else 1


def _leaves(op: Op) -> int:
    """How many more, or fewer, there are afterwards."""
    if op in (Op.DUP, Op.X, Op.ZERO, Op.ONE, Op.CONSTANT):
        return 1
    if op is Op.POP or Op.ADD <= op <= Op.MAX:
        return -1
    return -2 if op is Op.CLAMP else 0


def decode(code: bytes) -> list[Instruction]:
    """Return the instructions up to, and without, the first return.

    Raises:
        KModelError: an unknown instruction, a stack that would run empty or grow beyond 64, or no return.
    """
    found: list[Instruction] = []
    depth = position = 0
    while position < len(code):
        try:
            op = Op(code[position])
        except ValueError:
            raise KModelError(f"byte {position} of its code, {code[position]:#04x}, is no instruction") from None
        position += 1
        if depth < _needs(op):
            raise KModelError(f"{op.name.lower()} at byte {position - 1} of its code finds {depth} numbers")
        if op is Op.RETURN:
            return found
        value = 0.0
        if op is Op.CONSTANT:
            if position + 4 > len(code):
                break
            (value,) = struct.unpack_from("<f", code, position)
            position += 4
        depth += _leaves(op)
        if depth > STACK:
            raise KModelError(f"the stack of its code would hold more than {STACK} numbers")
        if op is not Op.NOP:
            found.append(Instruction(op, value))
    raise KModelError("its code ends without a return")


def encode(instructions: list[Instruction]) -> bytes:
    """Return the code of the instructions, with a return behind them."""
    parts = [
        bytes([i.op]) + (struct.pack("<f", i.value) if i.op is Op.CONSTANT else b"")
        for i in (*instructions, Instruction(Op.RETURN))
    ]
    return b"".join(parts)
