"""Fixed-point types: parse, print, combine, and quantise exactly.

This is the only module that knows what ``ap_fixed<16,6,AP_RND,AP_SAT>`` means. A value is an integer, called
*raw*, times ``2**-fraction``. Assigning a number to a type takes its exact real value, rounds it to the grid
of the type, then makes it fit the range; no step in between loses a bit.
"""

from __future__ import annotations

import enum
import functools
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import PrecisionError, did_you_mean
from kconvert.packages import import_package

if TYPE_CHECKING:
    import pyparsing as pp

RawArray = npt.NDArray[Any]
"""Raw values: int64, uint64 (unsigned, 64 bits wide), or Python ints in an object array above 64 bits."""

MAX_PARSED_WIDTH = 64
MAX_WIDTH = 128  # the product of two 64-bit values
MAX_INTEGER = 512  # keeps every bound and every step of every type a normal double

_INTEGER_NAMES = {"ap_int": True, "int": True, "ap_uint": False, "uint": False}
_FIXED_NAMES = {"ap_fixed": True, "fixed": True, "ap_ufixed": False, "ufixed": False}


class Rounding(enum.Enum):
    """What happens to bits below the last one of the type."""

    RND = "AP_RND"
    """Nearest, a tie goes up."""
    RND_ZERO = "AP_RND_ZERO"
    """Nearest, a tie goes to zero."""
    RND_MIN_INF = "AP_RND_MIN_INF"
    """Nearest, a tie goes down."""
    RND_INF = "AP_RND_INF"
    """Nearest, a tie goes away from zero."""
    RND_CONV = "AP_RND_CONV"
    """Nearest, a tie goes to the even neighbour."""
    TRN = "AP_TRN"
    """Down (drop the bits)."""
    TRN_ZERO = "AP_TRN_ZERO"
    """To zero."""


class Overflow(enum.Enum):
    """What happens to a rounded value outside the range of the type."""

    SAT = "AP_SAT"
    """The nearest bound."""
    SAT_ZERO = "AP_SAT_ZERO"
    """Zero."""
    SAT_SYM = "AP_SAT_SYM"
    """The nearest bound of a range that is symmetric around zero."""
    WRAP = "AP_WRAP"
    """Drop the high bits; of what is left, `saturation_bits` high bits saturate."""
    WRAP_SM = "AP_WRAP_SM"
    """As WRAP, folding back at the bounds (sign-magnitude) instead of jumping."""


@dataclass(frozen=True, slots=True)
class FixedType:
    """A fixed-point type; ``ap_int<W>`` is the one with ``integer == width``.

    Attributes:
        width: All bits, 1 to 128 (what users write stops at 64; exact products need more).
        integer: Bits left of the binary point with the sign bit; may be negative or above `width`.
        signed: Two's complement if true.
        rounding: Applied when a value is assigned to the type.
        overflow: Applied after rounding.
        saturation_bits: The N of AP_WRAP and AP_WRAP_SM; the other overflow modes ignore it.

    Raises:
        PrecisionError: The numbers describe no type.
    """

    width: int
    integer: int
    signed: bool = True
    rounding: Rounding = Rounding.TRN
    overflow: Overflow = Overflow.WRAP
    saturation_bits: int = 0

    def __post_init__(self) -> None:
        for field in ("width", "integer", "saturation_bits"):
            # A numpy integer would overflow in the shifts below; keep Python ints.
            object.__setattr__(self, field, _python_int(field, getattr(self, field)))
        object.__setattr__(self, "signed", bool(self.signed))
        if not isinstance(self.rounding, Rounding) or not isinstance(self.overflow, Overflow):
            raise PrecisionError(f"not a rounding and an overflow mode: {self.rounding!r}, {self.overflow!r}")
        if not 1 <= self.width <= MAX_WIDTH:
            raise PrecisionError(f"a width of {self.width} bits is not possible; it must be 1 to {MAX_WIDTH}")
        if abs(self.integer) > MAX_INTEGER:
            raise PrecisionError(f"{self.integer} integer bits: must be -{MAX_INTEGER} to {MAX_INTEGER}")
        if not 0 <= self.saturation_bits <= self.width:
            raise PrecisionError(
                f"{self.saturation_bits} saturation bits: must be 0 to the width, which is {self.width}"
            )
        if self.overflow is Overflow.WRAP_SM and not self.signed:
            raise PrecisionError("AP_WRAP_SM needs a signed type; use AP_WRAP for an unsigned one")

    @classmethod
    def parse(cls, text: str) -> FixedType:
        """Read ``ap_fixed<16,6,AP_RND,AP_SAT>``, ``ufixed<8,0>``, ``fixed<8,4,RND,SAT>``, ``ap_int<8>``, ...

        Raises:
            PrecisionError: The message shows `text`, points at the bad character and says what belongs there.
        """
        if not isinstance(text, str):
            raise PrecisionError(f"a precision must be a string such as 'ap_fixed<16,6>', not {_kind(text)}")
        return _parse(text)

    def __str__(self) -> str:
        options: list[object] = [self.width, self.integer]
        if (self.rounding, self.overflow, self.saturation_bits) != (Rounding.TRN, Overflow.WRAP, 0):
            options += [self.rounding.value, self.overflow.value]
        if self.saturation_bits:
            options.append(self.saturation_bits)
        return f"ap_{'' if self.signed else 'u'}fixed<{','.join(map(str, options))}>"

    def with_(self, **changes: Any) -> FixedType:
        """Return this type with some attributes replaced."""
        return replace(self, **changes)

    # ---------------------------------------------------------------- range and grid

    @property
    def fraction(self) -> int:
        """Bits right of the binary point; negative if the step is above 1."""
        return self.width - self.integer

    @property
    def raw_min(self) -> int:
        """The lowest raw value the bits can hold (also with AP_SAT_SYM, which never produces it)."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def raw_max(self) -> int:
        """The highest raw value."""
        return (1 << (self.width - self.signed)) - 1

    @property
    def min(self) -> float:
        """The lowest value."""
        return math.ldexp(self.raw_min, -self.fraction)

    @property
    def max(self) -> float:
        """The highest value, rounded to a double if it has more than 53 bits."""
        return math.ldexp(self.raw_max, -self.fraction)

    @property
    def step(self) -> float:
        """The distance between neighbouring values."""
        return math.ldexp(1.0, -self.fraction)

    @property
    def raw_dtype(self) -> np.dtype[Any]:
        """The numpy type of raw values: int64, uint64 (unsigned, 64 bits) or object (above 64 bits)."""
        if self.width > 64:
            return np.dtype(object)
        return np.dtype(np.int64 if self.signed or self.width < 64 else np.uint64)

    def holds(self, other: FixedType) -> bool:
        """Whether assigning any value of `other` to this type leaves it unchanged."""
        finer = self.fraction - other.fraction
        if self == other or finer < 0:
            return self == other
        lowest = self.raw_min + (self.signed and self.overflow is Overflow.SAT_SYM)
        return lowest <= other.raw_min << finer and other.raw_max << finer <= self.raw_max

    # ---------------------------------------------------------------- types of exact results

    def __add__(self, other: FixedType) -> FixedType:
        if not isinstance(other, FixedType):
            return NotImplemented
        return grow(union(self, other), 2)

    def __sub__(self, other: FixedType) -> FixedType:
        if not isinstance(other, FixedType):
            return NotImplemented
        return (self + other).with_(signed=True)

    def __mul__(self, other: FixedType) -> FixedType:
        if not isinstance(other, FixedType):
            return NotImplemented
        return FixedType(self.width + other.width, self.integer + other.integer, self.signed or other.signed)

    def __neg__(self) -> FixedType:
        return FixedType(self.width + 1, self.integer + 1)

    # ---------------------------------------------------------------- values

    def to_raw(self, x: npt.ArrayLike) -> RawArray:
        """Assign numbers to this type, exactly, and return raw values of the same shape.

        Args:
            x: Floats up to 64 bits or integers of any size, any shape. Infinity counts as a huge power of
                two (saturates, or wraps to 0); NaN gives 0.

        Returns:
            An array of :attr:`raw_dtype`.

        Raises:
            PrecisionError: `x` is not made of real numbers that fit a double or an integer.
        """
        values = np.asarray(x)
        flat = values.reshape(-1)
        if values.dtype.kind in "biuO":
            raw = self._assign_integers(_integers(flat), 0)
        elif np.can_cast(values.dtype, np.float64):
            raw = self._assign_floats(flat.astype(np.float64, copy=False))
        else:
            raise PrecisionError(f"cannot quantise {values.dtype} values exactly; convert them to float64 first")
        return raw.reshape(values.shape)

    def from_raw(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the values that raw values stand for, rounded half to even beyond 53 bits."""
        scaled: npt.NDArray[np.float64] = np.asarray(np.asarray(raw).astype(np.float64) * self.step)
        return scaled

    def quantize(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the values numbers take when they are assigned to this type."""
        return self.from_raw(self.to_raw(x))

    def requantize(self, raw: npt.ArrayLike, source: FixedType) -> RawArray:
        """Assign values of another fixed-point type, exactly; between identical types the bits are copied.

        Args:
            raw: Raw values of `source`: any integer array, or Python ints in an object array.
            source: Their type, up to 128 bits wide.

        Returns:
            Raw values of this type, an array of :attr:`raw_dtype` with the shape of `raw`.

        Raises:
            PrecisionError: `raw` does not hold integers.
        """
        values = np.asarray(raw)
        flat = _integers(values.reshape(-1))
        if self == source:
            return flat.astype(self.raw_dtype).reshape(values.shape)
        return self._assign_integers(flat, source.fraction).reshape(values.shape)

    @property
    def _native(self) -> bool:
        """Whether 64 bits hold all the overflow rule looks at (AP_WRAP_SM needs one bit above the type)."""
        return self.width + (self.overflow is Overflow.WRAP_SM) <= 64

    def _assign_integers(self, raw: RawArray, fraction: int) -> RawArray:
        """Assign the values ``raw * 2**-fraction``; `raw` is int64, uint64 or object."""
        if not self._native:
            raw = raw.astype(object)
        shift = self.fraction - fraction
        if shift < 0:
            raw, shift = _shift_right(raw, -shift, self.rounding), 0
        # Compared before the shift to the left, which may push bits out of 64.
        above, below = raw > self.raw_max >> shift, raw < -(-self.raw_min >> shift)
        bits = raw if raw.dtype == object else raw.astype(np.uint64)
        return self._fit(bits << shift, above, below)

    def _assign_floats(self, x: npt.NDArray[np.float64]) -> RawArray:
        with np.errstate(over="ignore", under="ignore"):
            scaled = x * (1.0 / self.step)
        if self.fraction < 0:
            # What underflowed must still round as something just above or below zero.
            scaled = np.where(scaled == 0, x, scaled)
        # Above 2**200 all bits a type can keep are zero, so one such number stands for them all.
        scaled = np.clip(np.where(np.isnan(scaled), 0.0, scaled), -(2.0**200), 2.0**200)
        rounded = _round(scaled, self.rounding)
        if not self._native:
            exact = np.array([int(v) for v in rounded], dtype=object)
            return self._assign_integers(exact, self.fraction)
        end = 2.0 ** (self.width - self.signed)
        return self._fit(_low_bits(rounded), rounded >= end, rounded < (-end if self.signed else 0.0))

    def _fit(self, bits: RawArray, above: npt.NDArray[np.bool_], below: npt.NDArray[np.bool_]) -> RawArray:
        """Apply the overflow rule.

        Args:
            bits: Rounded values; the low 64 bits of each as uint64, or Python ints.
            above: Which values lie above the range.
            below: Which values lie below it.
        """
        if self.overflow is Overflow.WRAP_SM:
            bits = self._fold(bits, above, below)
        if self.saturation_bits and self.overflow in (Overflow.WRAP, Overflow.WRAP_SM):
            bits = self._saturate_high_bits(bits, above, below)
        # Into the range modulo 2**width; uint64 arithmetic wraps the way two's complement needs.
        sign = -self.raw_min
        raw = (((bits + sign) & ((1 << self.width) - 1)) - sign).astype(self.raw_dtype)
        match self.overflow:
            case Overflow.SAT:
                raw[above], raw[below] = self.raw_max, self.raw_min
            case Overflow.SAT_ZERO:
                raw[above | below] = 0
            case Overflow.SAT_SYM:
                raw[above], raw[below] = self.raw_max, self.raw_min
                if self.signed:
                    raw[raw == self.raw_min] = self.raw_min + 1
        return raw

    def _fold(self, bits: RawArray, above: npt.NDArray[np.bool_], below: npt.NDArray[np.bool_]) -> RawArray:
        """Invert the values that AP_WRAP_SM mirrors."""
        if self.saturation_bits == 0:
            flip = ((bits >> self.width) ^ (bits >> (self.width - 1))) & 1 == 1
        else:
            lowest_saturated = (bits >> (self.width - self.saturation_bits)) & 1 == 1
            mirrored = lowest_saturated == below
            flip = (above | below) & (mirrored if self.saturation_bits > 1 else ~mirrored)
        return np.where(flip, ~bits, bits)

    def _saturate_high_bits(
        self, bits: RawArray, above: npt.NDArray[np.bool_], below: npt.NDArray[np.bool_]
    ) -> RawArray:
        """Set the high `saturation_bits` bits of values out of range to those of the nearest bound."""
        kept = (1 << (self.width - self.saturation_bits)) - 1
        low = bits & kept
        # An unsigned type has set bits at both ends: AP_WRAP treats a negative value as too big.
        highest, lowest = self.raw_max & ~kept, (-self.raw_min if self.signed else self.raw_max) & ~kept
        return np.where(above, low | highest, np.where(below, low | lowest, bits))


def union(*types: FixedType) -> FixedType:
    """Return the smallest type that holds every value of all `types`, with the default modes.

    Raises:
        PrecisionError: No type was given, or the result would be wider than 128 bits.
    """
    if not types:
        raise PrecisionError("the union of no types is not a type; give at least one")
    signed = any(t.signed for t in types)
    integer = max(t.integer + (signed and not t.signed) for t in types)
    return FixedType(integer + max(t.fraction for t in types), integer, signed)


def grow(t: FixedType, n: int) -> FixedType:
    """Return the type of the exact sum of `n` values of `t`, with the default modes.

    Raises:
        PrecisionError: `n` is below 1, or the result would be wider than 128 bits.
    """
    if n < 1:
        raise PrecisionError(f"a sum of {n} values has no type; it needs at least one value")
    bits = (int(n) - 1).bit_length()
    return FixedType(t.width + bits, t.integer + bits, t.signed)


def exact_type(values: npt.ArrayLike, max_width: int = 32) -> FixedType:
    """Return the smallest type that holds every one of `values`, signed only if one is negative.

    Where that takes more than `max_width` bits, the integer bits stay, low bits go, and the type rounds to nearest and
    saturates.

    Args:
        values: Finite numbers of any shape, taken as float64. Zeros alone, or none, get one unsigned bit.
        max_width: Most bits the type may have.

    Raises:
        PrecisionError: A value is NaN, infinite, or needs integer bits outside of what a type can have.
    """
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(x).all():
        raise PrecisionError(f"no type holds {x[~np.isfinite(x)][0]}; give finite values")
    x = x[x != 0]
    if not x.size:
        return FixedType(1, 1, signed=False)
    signed = bool((x < 0).any())
    mantissa, exponent = np.frexp(x)  # 0.5 <= |mantissa| < 1, a multiple of 2**-53
    # -(2**n) needs one bit less than 2**n: two's complement reaches one step further down.
    integer = int((exponent - (mantissa == -0.5)).max()) + signed
    whole = np.ldexp(np.abs(mantissa), 53).astype(np.int64)
    trailing_zeros = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    fraction = int((53 - exponent - trailing_zeros).max())
    if integer + fraction <= max_width:
        return FixedType(integer + fraction, integer, signed)
    return FixedType(max_width, integer, signed, Rounding.RND, Overflow.SAT)


def common_power_of_two(values: npt.ArrayLike) -> int | None:
    """Return the exponent if all of `values` are one and the same power of two, else None."""
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    mantissa, exponent = np.frexp(x[0])
    return int(exponent) - 1 if mantissa == 0.5 and bool(np.all(x == x[0])) else None


def parse_precision(text: str | FixedType) -> FixedType | None:
    """Read a precision as :meth:`FixedType.parse` does, but ``auto`` gives None and a type is given back.

    Raises:
        PrecisionError: As :meth:`FixedType.parse`.
    """
    if isinstance(text, FixedType):
        return text
    if isinstance(text, str) and text.strip() == "auto":
        return None
    return FixedType.parse(text)


# -------------------------------------------------------------------- exact arithmetic on arrays


def _integers(values: RawArray) -> RawArray:
    """Return integers as int64, uint64 or, if they were Python ints, as an object array."""
    if values.dtype.kind == "O":
        try:
            return np.array([operator.index(v) for v in values], dtype=object)
        except TypeError:
            raise PrecisionError("cannot quantise an array of mixed objects; give floats or integers only") from None
    if values.dtype.kind not in "biu":
        raise PrecisionError(f"raw values must be integers, not {values.dtype}")
    return values.astype(np.uint64 if values.dtype.kind == "u" else np.int64, copy=False)


def _shift_right(raw: RawArray, bits: int, rounding: Rounding) -> RawArray:
    """Divide integers by ``2**bits``, `bits` > 0, and round."""
    if raw.dtype != object and bits > 62:
        # All that is pushed out early is kept as one "sticky" bit, still below the half.
        early = min(bits - 62, 63)
        raw, bits = (raw >> early) | (raw & ((1 << early) - 1) != 0).astype(raw.dtype), 62
    floor = raw >> bits
    rest = raw & ((1 << bits) - 1)
    half = 1 << (bits - 1)
    match rounding:
        case Rounding.TRN:
            return floor
        case Rounding.TRN_ZERO:
            up = (raw < 0) & (rest != 0)
        case Rounding.RND:
            up = rest >= half
        case Rounding.RND_MIN_INF:
            up = rest > half
        case Rounding.RND_ZERO:
            up = (rest > half) | ((rest == half) & (raw < 0))
        case Rounding.RND_INF:
            up = (rest > half) | ((rest == half) & (raw >= 0))
        case Rounding.RND_CONV:
            up = (rest > half) | ((rest == half) & (floor & 1 == 1))
    rounded: RawArray = floor + up.astype(raw.dtype)
    return rounded


def _round(x: npt.NDArray[np.float64], rounding: Rounding) -> npt.NDArray[np.float64]:
    """Round finite doubles to whole numbers.

    Never ``floor(x + 0.5)``: that sum rounds. The distance to the nearest whole number is always exact.
    """
    if rounding is Rounding.TRN:
        return np.floor(x)
    if rounding is Rounding.TRN_ZERO:
        return np.trunc(x)
    nearest: npt.NDArray[np.float64] = np.rint(x)  # ties to even; the other modes move ties that went the wrong way
    if rounding is Rounding.RND_CONV:
        return nearest
    distance = x - nearest
    match rounding:
        case Rounding.RND:
            wrong: npt.NDArray[np.float64] | float = 0.5
        case Rounding.RND_MIN_INF:
            wrong = -0.5
        case Rounding.RND_INF:
            wrong = np.copysign(0.5, x)
        case Rounding.RND_ZERO:
            wrong = np.copysign(0.5, -x)
    return np.where(distance == wrong, nearest + 2 * distance, nearest)


def _low_bits(whole: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Return finite whole doubles modulo ``2**64``."""
    if not np.all(np.abs(whole) < 2.0**63):
        whole = np.fmod(whole, 2.0**64)
        whole = whole - np.where(whole >= 2.0**63, 2.0**64, 0.0) + np.where(whole < -(2.0**63), 2.0**64, 0.0)
    return whole.astype(np.int64).astype(np.uint64)


def _kind(value: object) -> str:
    return f"{type(value).__name__} {value!r}"


def _python_int(field: str, value: object) -> int:
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise PrecisionError(f"{field} must be an integer, not {_kind(value)}") from None


# -------------------------------------------------------------------- reading text


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> FixedType:
    pp = import_package("pyparsing", "reading a precision")  # other programs do without it
    try:
        fields = _grammar().parse_string(text, parse_all=True).as_dict()
        return FixedType(**{"integer": fields["width"], **fields})
    except pp.ParseBaseException as error:
        at = error.loc + len(text[error.loc :]) - len(text[error.loc :].lstrip())
        reason = error.msg[:1].lower() + error.msg[1:]
        shown = re.sub(r"\s", " ", text)
        raise PrecisionError(f"invalid precision: {reason}\n  {shown}\n  {' ' * at}^") from None
    except PrecisionError as error:
        raise PrecisionError(f"invalid precision {text!r}: {error}") from None


@functools.cache
def _grammar() -> pp.ParserElement:
    import pyparsing as pp

    open_, comma, close = (pp.Suppress(c).set_name(f"'{c}'") for c in "<,>")
    more = "',' or '>'"
    width = _number("a width in bits", 1, MAX_PARSED_WIDTH)("width")
    integer = _number("a number of integer bits", -MAX_INTEGER, MAX_INTEGER)("integer")
    saturation_bits = _number("a number of saturation bits", 0, MAX_PARSED_WIDTH)("saturation_bits")
    rounding = _choice("a rounding mode", _mode_names(Rounding), "an overflow mode", _mode_names(Overflow))
    overflow = _choice("an overflow mode", _mode_names(Overflow), "a rounding mode", _mode_names(Rounding))
    type_name = _choice("a type name", _FIXED_NAMES | _INTEGER_NAMES)

    options = (close | (comma - saturation_bits - close)).set_name(more)
    options = (close | (comma - overflow("overflow") - options)).set_name(more)
    options = (close | (comma - rounding("rounding") - options)).set_name(more)
    integer_name = pp.one_of(list(_INTEGER_NAMES), as_keyword=True).set_parse_action(
        lambda tokens: _INTEGER_NAMES[tokens[0]]
    )
    whole = integer_name("signed") - open_ - width - close
    fixed = type_name("signed") - open_ - width - comma - integer - options
    return (whole | fixed).set_name("a type name such as ap_fixed").parse_with_tabs()


def _mode_names(modes: type[Rounding] | type[Overflow]) -> dict[str, object]:
    by_value: dict[str, object] = {mode.value: mode for mode in modes}
    return by_value | {mode.name: mode for mode in modes}


def _number(what: str, lowest: int, highest: int) -> pp.ParserElement:
    import pyparsing as pp

    def check(text: str, at: int, tokens: pp.ParseResults) -> int:
        digits = str(tokens[0])
        value = int(digits) if len(digits) < 9 else math.inf
        if what == "a width in bits" and value > highest:
            raise pp.ParseFatalException(text, at, f"widths above {highest} are not supported, found {digits}")
        if not lowest <= value <= highest:
            raise pp.ParseFatalException(text, at, f"expected {what}, {lowest} to {highest}, found {digits}")
        return int(value)

    return pp.Regex(r"[+-]?[0-9]+").set_name(what).set_parse_action(check)


def _choice(
    what: str, table: Mapping[str, object], other: str = "", others: Mapping[str, object] | None = None
) -> pp.ParserElement:
    """Match a word and give what `table` says it means; `others` are words that belong in another place."""
    import pyparsing as pp

    def look_up(text: str, at: int, tokens: pp.ParseResults) -> object:
        word = str(tokens[0])
        if word in table:
            return table[word]
        hint = f", which is {other}" if others and word in others else did_you_mean(word, table)
        allowed = ", ".join(name for name in table if what == "a type name" or name.startswith("AP_"))
        message = f"expected {what}, found {word!r}{hint} (allowed: {allowed})"
        raise pp.ParseFatalException(text, at, message)

    return pp.Word(pp.alphas + "_", pp.alphanums + "_").set_name(what).set_parse_action(look_up)
