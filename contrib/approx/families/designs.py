"""The families: each design takes operands x and y, from -128 to 127, to an approximation of their product.

Arrays of partial products (truncated operands, truncated columns, broken arrays) work on two's complement, so the row
of y's sign bit is subtracted. Logarithms, segments and 2x2 blocks work on sign and magnitude, with |-128| = 128.
"""

from __future__ import annotations

from .circuit import Value, const, select

WIDTH = 8

# ***** arrays of partial products *****


def exact(x: Value, y: Value) -> Value:
    """x·y."""
    return x * y


def truncated_operands(x: Value, y: Value, of_x: int, of_y: int) -> Value:
    """Leave the low bits of the operands out: rounded down, so that both multipliers and adders get narrower."""
    return ((x >> of_x) * (y >> of_y)) << (of_x + of_y)


def broken_array(x: Value, y: Value, rows: int, columns: int, constant: int = 0) -> Value:
    """Sum the bits x_i y_j of the array of partial products where j >= `rows` and i + j >= `columns`.

    Mahdiani, Ahmadi, Fakhraie, Lucas: Bio-inspired imprecise computational blocks, IEEE TCAS-I 57 (2010): horizontal
    and vertical break level. A `constant` takes the place of what is left out.
    """
    total = const(constant)
    for j in range(rows, WIDTH):
        low = max(columns - j, 0)
        if low >= WIDTH:
            continue
        row = select(y.bit(j), x >> low, 0) << (low + j)
        total = (total + row if j < WIDTH - 1 else total - row).named("sum")
    return total


def truncated_columns(x: Value, y: Value, columns: int, compensated: bool = False) -> Value:
    """Leave the low columns out of the array; if compensated, their mean, rounded to an integer, is added."""
    return broken_array(x, y, 0, columns, round(mean_of_columns(columns)) if compensated else 0)


def mean_of_columns(columns: int) -> float:
    """Mean of the low columns of the array: a quarter of the weight of every bit, negative in one sign row."""
    bits = [(i, j) for i in range(WIDTH) for j in range(WIDTH) if i + j < columns]
    return sum((-1.0 if (i == WIDTH - 1) != (j == WIDTH - 1) else 1.0) * 2.0 ** (i + j) for i, j in bits) / 4


# ***** sign and magnitude *****


def magnitude(x: Value, name: str) -> Value:
    """|x|, from 0 to 128."""
    value = select(x < 0, -x, x)
    return Value(value.op, value.args, 0, 128, name)


def with_sign(product: Value, x: Value, y: Value) -> Value:
    """Give a product of magnitudes the sign of x·y."""
    value = product.named("m")
    return select((x < 0) ^ (y < 0), -value, value)


def mitchell(x: Value, y: Value, fraction: int) -> Value:
    """Add the logarithms to base 2, with log(1 + f) taken as f, of `fraction` bits (7: nothing is lost).

    Mitchell: Computer multiplication and division using binary logarithms, IRE Trans. EC-11 (1962).
    """
    a, b = magnitude(x, "a"), magnitude(y, "b")
    total = (_logarithm(a, fraction) + _logarithm(b, fraction)).named("log")
    whole, part = total >> fraction, total & ((1 << fraction) - 1)
    power = ((part | (1 << fraction)) << whole) >> fraction
    return with_sign(select(a.is_zero() | b.is_zero(), 0, power), x, y)


def _logarithm(a: Value, fraction: int) -> Value:
    """Position of the leading one, followed by the bits after it."""
    shifts = []
    for step in (4, 2, 1):
        room = (a < (1 << (WIDTH - step))).named("room")
        a = select(room, (a & ((1 << (WIDTH - step)) - 1)) << step, a).named("norm")
        shifts.append(room << (step.bit_length() - 1))
    position = (shifts[0] | shifts[1] | shifts[2]) ^ (WIDTH - 1)
    after = a & ((1 << (WIDTH - 1)) - 1)
    return (position << fraction) | (after >> (WIDTH - 1 - fraction))


def drum(x: Value, y: Value, bits: int) -> Value:
    """Multiply the leading `bits` bits of each magnitude; the last of them is set where others were cut off.

    Hashemi, Bahar, Reda: DRUM, a dynamic range unbiased multiplier for approximate applications, ICCAD 2015.
    """
    return _segments(x, y, _to_leading_one(bits), unbiased=True)


def leading_one(x: Value, y: Value, bits: int) -> Value:
    """Multiply the leading `bits` bits of each magnitude, cut off: the segment begins at the leading one."""
    return _segments(x, y, _to_leading_one(bits))


def static_segment(x: Value, y: Value, bits: int) -> Value:
    """Multiply the high `bits` bits of each magnitude where they hold all of its ones, else the low ones.

    Narayanamoorthy, Moghaddam, Liu, Park, Kim: Energy-efficient approximate multiplication, IEEE TVLSI 23 (2015).
    """
    return _segments(x, y, [(WIDTH - bits, bits)])


def _to_leading_one(bits: int) -> list[tuple[int, int]]:
    """Shifts that leave `bits` bits from the leading one on, and the bits from which each is needed."""
    return [(step, bits + step - 1) for step in (4, 2, 1) if bits + step <= WIDTH]


def _segments(x: Value, y: Value, shifts: list[tuple[int, int]], unbiased: bool = False) -> Value:
    one, one_shift = _segment(magnitude(x, "a"), shifts, unbiased)
    other, other_shift = _segment(magnitude(y, "b"), shifts, unbiased)
    return with_sign((one * other) << (one_shift + other_shift), x, y)


def _segment(a: Value, shifts: list[tuple[int, int]], unbiased: bool) -> tuple[Value, Value]:
    """The segment of a magnitude, and by how much it was shifted to the right."""
    total = const(0)
    for step, reach in shifts:
        far = (a >= (1 << reach)).named("far")
        a = select(far, a >> step, a & ((1 << reach) - 1)).named("part")
        total = total | select(far, step, 0)
    total = total.named("shift")
    return a | (total >= 1) if unbiased else a, total


def blocks_2x2(x: Value, y: Value, columns: int) -> Value:
    """Build the product of magnitudes from 2x2-bit blocks; in those below column 2·`columns`, 3·3 = 7.

    Kulkarni, Gupta, Ercegovac: Trading accuracy for power with an underdesigned multiplier architecture, VLSI
    Design 2011. With `columns` = 7 all blocks are such; else only those of digits i, j with i + j < `columns`.
    """
    a, b = magnitude(x, "a"), magnitude(y, "b")
    total = const(0)
    for j in range(WIDTH // 2):
        low, high = b.bit(2 * j), b.bit(2 * j + 1)
        cut = min(max(2 * (columns - j), 0), WIDTH)
        rows = (*_cheap_rows(a & ((1 << cut) - 1), low, high), *_exact_rows((a >> cut) << cut, low, high))
        for row in rows:
            total = total + (row << (2 * j))
        total = total.named("sum")
    return with_sign(total, x, y)


def _cheap_rows(a: Value, low: Value, high: Value) -> tuple[Value, ...]:
    """a times a digit of two bits: bit 1 of each block is an OR, and bit 3 is none."""
    even, odd = a & 0x55, (a >> 1) & 0x55
    middle = select(low, odd, 0) | select(high, even, 0)
    return select(low, even, 0) | (middle << 1), select(high, odd << 2, 0)


def _exact_rows(a: Value, low: Value, high: Value) -> tuple[Value, ...]:
    return select(low, a, 0), select(high, a << 1, 0)
