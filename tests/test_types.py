"""Fixed-point types against the rules of ap_fixed, written again with Python integers and fractions."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kconvert.errors import PrecisionError
from kconvert.types import FixedType, Overflow, Rounding, exact_type, grow, parse_precision, union
from tests.conftest import golden

EXAMPLES = settings(deadline=None, max_examples=150)

# -------------------------------------------------------------------- the slow model


def model(value: Fraction, t: FixedType) -> int:
    """Return the raw value that assigning `value` to `t` gives."""
    return fit_model(round_model(value * Fraction(2) ** t.fraction, t.rounding), t)


def round_model(v: Fraction, mode: Rounding) -> int:
    below, above = math.floor(v), math.ceil(v)
    to_zero, from_zero = (below, above) if v >= 0 else (above, below)
    if mode is Rounding.TRN:
        return below
    if mode is Rounding.TRN_ZERO:
        return to_zero
    if v - below != above - v:
        return below if v - below < above - v else above
    return {
        Rounding.RND: above,
        Rounding.RND_MIN_INF: below,
        Rounding.RND_ZERO: to_zero,
        Rounding.RND_INF: from_zero,
        Rounding.RND_CONV: below if below % 2 == 0 else above,
    }[mode]


def fit_model(r: int, t: FixedType) -> int:
    w, n, low, high = t.width, t.saturation_bits, t.raw_min, t.raw_max
    inside = low <= r <= high
    if t.overflow is Overflow.SAT:
        return min(max(r, low), high)
    if t.overflow is Overflow.SAT_ZERO:
        return r if inside else 0
    if t.overflow is Overflow.SAT_SYM:
        return min(max(r, -high if t.signed else 0), high)
    if inside:
        return r
    bits = [r >> i & 1 for i in range(w + 1)]  # bits[w] is the lowest one that does not fit
    sign = int(r < 0)
    if t.overflow is Overflow.WRAP_SM:
        invert = {0: bits[w] != bits[w - 1], 1: sign != bits[w - 1]}.get(n, bits[w - n] == sign)
        msb = bits[w] if n == 0 else sign
        bits = [bit ^ invert for bit in bits]
        bits[w - 1] = msb
    if n:
        bits[w - n : w] = [1 - sign] * (n - 1) + [sign] if t.signed else [1] * n
    pattern = sum(bit << i for i, bit in enumerate(bits[:w]))
    return pattern - (1 << w) if t.signed and bits[w - 1] else pattern


def exact(raw: int, t: FixedType) -> Fraction:
    return int(raw) * Fraction(2) ** -t.fraction


def nearest_double(raw: int, t: FixedType) -> float:
    return float(exact(raw, t))


@st.composite
def fixed_types(draw: st.DrawFn, max_width: int = 64) -> FixedType:
    width = draw(st.integers(1, max_width) | st.sampled_from([1, 8, 16, 32, 53, 54, 63, 64]))
    signed = draw(st.booleans())
    overflow = draw(st.sampled_from([o for o in Overflow if signed or o is not Overflow.WRAP_SM]))
    wraps = overflow in (Overflow.WRAP, Overflow.WRAP_SM)
    return FixedType(
        width=width,
        integer=draw(st.integers(-8, width + 8) | st.integers(-80, 80)),
        signed=signed,
        rounding=draw(st.sampled_from(Rounding)),
        overflow=overflow,
        saturation_bits=draw(st.just(0) | st.integers(0, width)) if wraps else 0,
    )


def raws_of(t: FixedType) -> st.SearchStrategy[list[int]]:
    edges = st.integers(t.raw_min, t.raw_max) | st.sampled_from([t.raw_min, t.raw_max, 0])
    low, high = max(t.raw_min, -20), min(t.raw_max, 20)
    return st.lists(edges | st.integers(low, high), min_size=1, max_size=20)


def numbers_near(t: FixedType) -> st.SearchStrategy[float]:
    """Doubles that lie on, halfway between, or just beside the values of `t`."""
    quarters = st.integers(-64, 64) | st.integers(4 * t.raw_min - 8, 4 * t.raw_max + 8)
    on_grid = quarters.map(lambda q: math.ldexp(q, -t.fraction - 2))
    beside = st.builds(math.nextafter, on_grid, st.sampled_from([-math.inf, math.inf]))
    return on_grid | beside


# -------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ap_fixed<16,6>", FixedType(16, 6)),
        ("fixed<16,6>", FixedType(16, 6)),
        ("ufixed<8,0>", FixedType(8, 0, signed=False)),
        ("ap_ufixed<8,0,AP_RND,AP_SAT>", FixedType(8, 0, False, Rounding.RND, Overflow.SAT)),
        ("fixed<16,6,RND,SAT>", FixedType(16, 6, True, Rounding.RND, Overflow.SAT)),
        ("fixed<16,6,RND_CONV>", FixedType(16, 6, True, Rounding.RND_CONV)),
        ("ap_fixed<8,4,AP_TRN,AP_WRAP,2>", FixedType(8, 4, saturation_bits=2)),
        ("ap_fixed<8,-3>", FixedType(8, -3)),
        ("ap_fixed<8,+12>", FixedType(8, 12)),
        ("ap_int<8>", FixedType(8, 8)),
        ("int<64>", FixedType(64, 64)),
        ("ap_uint<1>", FixedType(1, 1, signed=False)),
        ("uint<8>", FixedType(8, 8, signed=False)),
        (
            "  ap_fixed < 16 ,\t6 , AP_TRN_ZERO,SAT_SYM >\n",
            FixedType(16, 6, True, Rounding.TRN_ZERO, Overflow.SAT_SYM),
        ),
    ],
)
def test_parses_every_spelling(text: str, expected: FixedType) -> None:
    assert FixedType.parse(text) == expected
    assert parse_precision(text) == expected


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (FixedType(16, 6), "ap_fixed<16,6>"),
        (FixedType(8, 8, signed=False), "ap_ufixed<8,8>"),
        (FixedType(8, 0, False, Rounding.RND, Overflow.SAT), "ap_ufixed<8,0,AP_RND,AP_SAT>"),
        (FixedType(8, 4, rounding=Rounding.RND), "ap_fixed<8,4,AP_RND,AP_WRAP>"),
        (FixedType(8, 4, overflow=Overflow.SAT_SYM), "ap_fixed<8,4,AP_TRN,AP_SAT_SYM>"),
        (FixedType(8, 4, saturation_bits=3), "ap_fixed<8,4,AP_TRN,AP_WRAP,3>"),
    ],
)
def test_prints_the_shortest_exact_text(t: FixedType, text: str) -> None:
    assert str(t) == text


@EXAMPLES
@given(fixed_types(), st.booleans(), st.sampled_from(["", " ", "\t ", "\n"]))
def test_text_round_trip(t: FixedType, short: bool, space: str) -> None:
    text = str(t)
    if short:
        text = text.replace("ap_", "").replace(",AP_", ",")
    for mark in "<,>":
        text = text.replace(mark, space + mark + space)
    assert FixedType.parse(text) == t
    assert FixedType.parse(str(t)) == t


def test_auto_is_no_type_yet() -> None:
    assert parse_precision("auto") is None
    assert parse_precision(" auto ") is None
    t = FixedType(8, 4)
    assert parse_precision(t) is t


@pytest.mark.parametrize(
    ("text", "caret", "says"),
    [
        ("", 0, "expected a type name"),
        ("auto", 0, "expected a type name"),
        ("16,6", 0, "expected a type name"),
        ("AP_FIXED<16,6>", 0, "found 'AP_FIXED'; did you mean 'ap_fixed'?"),
        ("ap_fixd<16,6>", 0, "did you mean 'ap_fixed'?"),
        ("Int<8>", 0, "did you mean 'int'?"),
        ("ap_intt<8>", 0, "did you mean 'ap_int'?"),
        ("ap_fixed", 8, "expected '<'"),
        ("ap_fixed(8,4)", 8, "expected '<'"),
        ("ap_fixed<>", 9, "expected a width in bits"),
        ("ap_fixed<x,4>", 9, "expected a width in bits"),
        ("ap_fixed<0,4>", 9, "expected a width in bits, 1 to 64, found 0"),
        ("ap_fixed<65,4>", 9, "widths above 64 are not supported, found 65"),
        ("ap_int<128>", 7, "widths above 64 are not supported"),
        ("ap_fixed<" + "9" * 5000 + ",4>", 9, "widths above 64 are not supported"),
        ("ap_fixed<16>", 11, "expected ','"),
        ("ap_fixed<16 6>", 12, "expected ','"),
        ("ap_fixed<16,6.5>", 13, "expected ',' or '>'"),
        ("ap_fixed<16,9999>", 12, "expected a number of integer bits, -512 to 512, found 9999"),
        ("ap_fixed<16,>", 12, "expected a number of integer bits"),
        ("ap_fixed<16,6", 13, "expected ',' or '>'"),
        ("ap_fixed<\t16,\n6;>", 15, "expected ',' or '>'"),
        ("ap_fixed<16,6,>", 14, "expected a rounding mode"),
        ("ap_fixed<16, 6, AP_RNDD>", 16, "did you mean 'AP_RND'?"),
        ("ap_fixed<16,6,ap_rnd_conv>", 14, "did you mean 'AP_RND_CONV'?"),
        ("ap_fixed<16,6,AP_SAT>", 14, "found 'AP_SAT', which is an overflow mode"),
        ("ap_fixed<16,6,AP_RND", 20, "expected ',' or '>'"),
        ("ap_fixed<16,6,AP_RND,AP_SATT>", 21, "did you mean 'AP_SAT'?"),
        ("ap_fixed<16,6,AP_RND,sat_sym>", 21, "did you mean 'SAT_SYM'?"),
        ("ap_fixed<16,6,AP_RND,TRN>", 21, "found 'TRN', which is a rounding mode"),
        ("ap_fixed<16,6,AP_RND,what>", 21, "(allowed: AP_SAT, AP_SAT_ZERO, AP_SAT_SYM, AP_WRAP, AP_WRAP_SM)"),
        ("ap_fixed<16,6,AP_RND,AP_WRAP,-1>", 29, "expected a number of saturation bits"),
        ("ap_fixed<16,6,AP_RND,AP_WRAP,1,2>", 30, "expected '>'"),
        ("ap_int<8,4>", 8, "expected '>'"),
        ("ap_fixed<16,6>>", 14, "expected end of text"),
        ("ap_fixed<16,6> x", 15, "expected end of text"),
    ],
)
def test_an_error_points_at_the_bad_character(text: str, caret: int, says: str) -> None:
    for parse in (FixedType.parse, parse_precision):
        if text == "auto" and parse is parse_precision:
            continue
        with pytest.raises(PrecisionError) as caught:
            parse(text)
        reason, shown, pointer = str(caught.value).split("\n")
        assert reason.startswith("invalid precision: ")
        assert says in reason
        assert shown == "  " + text.replace("\t", " ").replace("\n", " ")
        assert pointer == "  " + " " * caret + "^"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ap_ufixed<8,4,AP_TRN,AP_WRAP_SM>", "needs a signed type"),
        ("ap_fixed<8,4,AP_TRN,AP_WRAP,9>", "9 saturation bits"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused_with_the_text(text: str, says: str) -> None:
    with pytest.raises(PrecisionError, match=says) as caught:
        FixedType.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [None, 16, 1.5, b"ap_int<8>", ["ap_int<8>"]])
def test_what_is_no_text_is_named(value: object) -> None:
    with pytest.raises(PrecisionError, match=f"must be a string.* not {type(value).__name__} "):
        FixedType.parse(value)  # type: ignore[arg-type]
    with pytest.raises(PrecisionError, match="must be a string"):
        parse_precision(value)  # type: ignore[arg-type]


# -------------------------------------------------------------------- the type itself


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 0, "integer": 0}, "width of 0 bits"),
        ({"width": 129, "integer": 6}, "1 to 128"),
        ({"width": 16, "integer": 513}, "513 integer bits"),
        ({"width": 16, "integer": -513}, "-513 integer bits"),
        ({"width": 8, "integer": 4, "saturation_bits": 9}, "9 saturation bits"),
        ({"width": 8, "integer": 4, "saturation_bits": -1}, "-1 saturation bits"),
        (
            {"width": 8, "integer": 4, "signed": False, "overflow": Overflow.WRAP_SM},
            "AP_WRAP_SM needs a signed type",
        ),
        ({"width": 8.0, "integer": 4}, "width must be an integer, not float 8.0"),
        ({"width": 8, "integer": "4"}, "integer must be an integer, not str '4'"),
        ({"width": 8, "integer": 4, "rounding": "AP_RND"}, "not a rounding and an overflow mode"),
        ({"width": 8, "integer": 4, "overflow": Rounding.RND}, "not a rounding and an overflow mode"),
    ],
)
def test_impossible_types_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(PrecisionError, match=says):
        FixedType(**fields)  # type: ignore[arg-type]


def test_numpy_integers_do_not_leak_into_the_type() -> None:
    t = FixedType(np.int8(64), np.int8(16), np.bool_(True))  # type: ignore[arg-type]
    assert t == FixedType(64, 16)
    assert t.raw_max == 2**63 - 1
    assert [type(v) for v in (t.width, t.integer, t.signed)] == [int, int, bool]


def test_a_type_is_a_value() -> None:
    t = FixedType(8, 4)
    assert len({t, FixedType.parse("fixed<8,4>"), FixedType(8, 4, signed=False)}) == 2
    assert pickle.loads(pickle.dumps(t)) == t
    assert t.with_(overflow=Overflow.SAT) == FixedType(8, 4, overflow=Overflow.SAT)
    with pytest.raises(PrecisionError):
        t.with_(width=0)


@pytest.mark.parametrize(
    ("text", "low", "high", "step"),
    [
        ("ap_fixed<16,6>", -32.0, 32.0 - 2**-10, 2**-10),
        ("ap_ufixed<8,0>", 0.0, 1 - 2**-8, 2**-8),
        ("ap_int<1>", -1.0, 0.0, 1.0),
        ("ap_uint<1>", 0.0, 1.0, 1.0),
        ("ap_fixed<4,6>", -32.0, 28.0, 4.0),
        ("ap_fixed<4,-2>", -(2.0**-3), 7 * 2.0**-6, 2.0**-6),
        ("ap_uint<64>", 0.0, 2.0**64, 1.0),
        ("ap_fixed<64,-512>", -(2.0**-513), 2.0**-513, 2.0**-576),
        ("ap_fixed<8,4,TRN,SAT_SYM>", -8.0, 7.9375, 0.0625),
    ],
)
def test_range(text: str, low: float, high: float, step: float) -> None:
    t = FixedType.parse(text)
    assert (t.min, t.max, t.step) == (low, high, step)
    assert t.fraction == t.width - t.integer
    assert t.raw_max - t.raw_min == 2**t.width - 1


@pytest.mark.parametrize(
    ("t", "dtype"),
    [
        (FixedType(1, 1), np.int64),
        (FixedType(64, 0), np.int64),
        (FixedType(63, 0, signed=False), np.int64),
        (FixedType(64, 0, signed=False), np.uint64),
        (FixedType(64, 0, overflow=Overflow.WRAP_SM), np.int64),
        (FixedType(65, 0), object),
    ],
)
def test_raw_dtype(t: FixedType, dtype: type) -> None:
    assert t.raw_dtype == dtype
    for x in (np.ones((2, 3), np.float32), np.ones((2, 3), np.int8), 0.5, [], [[1, 2]]):
        raw = t.to_raw(x)
        assert isinstance(raw, np.ndarray)
        assert (raw.dtype, raw.shape) == (t.raw_dtype, np.shape(x))
        for source in (t, FixedType(32, 8), FixedType(100, 8)):
            again = t.requantize(source.to_raw(x), source)
            assert (again.dtype, again.shape) == (t.raw_dtype, np.shape(x))
        values = t.from_raw(raw)
        assert (values.dtype, values.shape) == (np.float64, np.shape(x))


# -------------------------------------------------------------------- tables of the rules

FRACTIONS = [2.5, 1.5, 0.5, 0.25, -0.25, -0.5, -0.75, -1.5, -2.5, -2.515625]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("TRN", [2, 1, 0, 0, -1, -1, -1, -2, -3, -3]),
        ("TRN_ZERO", [2, 1, 0, 0, 0, 0, 0, -1, -2, -2]),
        ("RND", [3, 2, 1, 0, 0, 0, -1, -1, -2, -3]),
        ("RND_ZERO", [2, 1, 0, 0, 0, 0, -1, -1, -2, -3]),
        ("RND_INF", [3, 2, 1, 0, 0, -1, -1, -2, -3, -3]),
        ("RND_MIN_INF", [2, 1, 0, 0, 0, -1, -1, -2, -3, -3]),
        ("RND_CONV", [2, 2, 0, 0, 0, 0, -1, -2, -2, -3]),
    ],
)
def test_rounding_table(mode: str, expected: list[int]) -> None:
    t, source = FixedType.parse(f"ap_fixed<8,8,{mode}>"), FixedType(16, 10)
    assert t.to_raw(FRACTIONS).tolist() == expected
    raw = source.to_raw(FRACTIONS)
    assert source.from_raw(raw).tolist() == FRACTIONS
    assert t.requantize(raw, source).tolist() == expected
    assert t.requantize(raw.astype(object), source.with_(width=100, integer=94)).tolist() == expected


SIGNED_VALUES = [6, 7, 8, 9, 12, 15, 16, 19, 24, 31, -8, -9, -10, -16, -17, -20, -25]
UNSIGNED_VALUES = [15, 16, 17, 31, 40, -1, -2, -16]


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        (
            "fixed<4,4,TRN,WRAP,0>",
            SIGNED_VALUES,
            [6, 7, -8, -7, -4, -1, 0, 3, -8, -1, -8, 7, 6, 0, -1, -4, 7],
        ),
        ("fixed<4,4,TRN,WRAP,1>", SIGNED_VALUES, [6, 7, 0, 1, 4, 7, 0, 3, 0, 7, -8, -1, -2, -8, -1, -4, -1]),
        ("fixed<4,4,TRN,WRAP,2>", SIGNED_VALUES, [6, 7, 4, 5, 4, 7, 4, 7, 4, 7, -8, -5, -6, -8, -5, -8, -5]),
        ("fixed<4,4,TRN,WRAP,3>", SIGNED_VALUES, [6, 7, 6, 7, 6, 7, 6, 7, 6, 7, -8, -7, -8, -8, -7, -8, -7]),
        ("fixed<4,4,TRN,SAT>", SIGNED_VALUES, [6, *[7] * 9, *[-8] * 7]),
        ("fixed<4,4,TRN,SAT_ZERO>", SIGNED_VALUES, [6, 7, *[0] * 8, -8, *[0] * 6]),
        ("fixed<4,4,TRN,SAT_SYM>", SIGNED_VALUES, [6, *[7] * 9, *[-7] * 7]),
        (
            "fixed<4,4,TRN,WRAP_SM,0>",
            SIGNED_VALUES,
            [6, 7, 7, 6, 3, 0, -1, -4, -8, -1, -8, -8, -7, -1, 0, 3, 7],
        ),
        (
            "fixed<4,4,TRN,WRAP_SM,1>",
            SIGNED_VALUES,
            [6, 7, 7, 6, 3, 0, 0, 3, 7, 0, -8, -8, -7, -1, -1, -4, -8],
        ),
        ("ufixed<4,4,TRN,WRAP,0>", UNSIGNED_VALUES, [15, 0, 1, 15, 8, 15, 14, 0]),
        ("ufixed<4,4,TRN,WRAP,1>", UNSIGNED_VALUES, [15, 8, 9, 15, 8, 15, 14, 8]),
        ("ufixed<4,4,TRN,WRAP,2>", UNSIGNED_VALUES, [15, 12, 13, 15, 12, 15, 14, 12]),
        ("ufixed<4,4,TRN,SAT>", UNSIGNED_VALUES, [15, 15, 15, 15, 15, 0, 0, 0]),
        ("ufixed<4,4,TRN,SAT_SYM>", UNSIGNED_VALUES, [15, 15, 15, 15, 15, 0, 0, 0]),
        ("ufixed<4,4,TRN,SAT_ZERO>", UNSIGNED_VALUES, [15, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_overflow_table(text: str, values: list[int], expected: list[int]) -> None:
    t = FixedType.parse(text)
    assert t.to_raw(values).tolist() == expected
    assert t.to_raw(np.array(values, np.float16)).tolist() == expected
    assert t.requantize(np.array(values), FixedType(16, 16)).tolist() == expected
    assert t.requantize(np.array(values, object), FixedType(128, 128)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("fixed<4,2,RND,SAT>", 1.99, 1.75),
        ("fixed<4,2,RND,WRAP>", 1.99, -2),
        ("ufixed<4,2,RND,SAT>", 3.99, 3.75),
        ("ufixed<4,2,RND>", -0.01, 0),
        ("ufixed<4,2,TRN>", -0.01, 3.75),
        ("fixed<8,4>", -1e-30, -0.0625),
        ("fixed<8,4,RND>", -1e-30, 0),
        ("fixed<8,4>", -0.0, 0),
        ("fixed<8,4,TRN,SAT>", 100, 7.9375),
        ("fixed<8,4>", 100, 4),
        ("fixed<8,8>", -7.5, -8),
        ("fixed<8,40,TRN>", -5e-324, -(2.0**32)),
        ("fixed<8,40,RND_MIN_INF>", -5e-324, 0),
        ("fixed<8,40,TRN_ZERO>", -5e-324, 0),
        ("fixed<8,-500,TRN,SAT>", 1e308, 127 * 2.0**-508),
    ],
)
def test_round_first_then_overflow(text: str, value: float, expected: float) -> None:
    assert FixedType.parse(text).quantize(value) == expected


def test_infinity_saturates_or_wraps_to_zero_and_nan_is_zero() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1e308, -1e308])
    for integer in (-500, 4, 8, 100):
        t = FixedType(8, integer)
        assert t.to_raw(x).tolist() == [0, 0, 0, 0, 0]
        assert t.with_(overflow=Overflow.SAT).to_raw(x).tolist() == [127, -128, 0, 127, -128]
        assert t.with_(overflow=Overflow.SAT_SYM).to_raw(x).tolist() == [127, -127, 0, 127, -127]
        assert t.with_(overflow=Overflow.SAT_ZERO).to_raw(x).tolist() == [0, 0, 0, 0, 0]
    wide = FixedType(100, 50, overflow=Overflow.SAT)
    assert wide.to_raw(x).tolist() == [wide.raw_max, wide.raw_min, 0, wide.raw_max, wide.raw_min]


@pytest.mark.parametrize(
    ("left", "op", "right", "expected"),
    [
        ("fixed<8,4>", "+", "fixed<10,3>", "fixed<12,5>"),
        ("fixed<8,4>", "-", "fixed<10,3>", "fixed<12,5>"),
        ("fixed<8,4>", "*", "fixed<10,3>", "fixed<18,7>"),
        ("ufixed<6,2>", "+", "ufixed<6,2>", "ufixed<7,3>"),
        ("ufixed<6,2>", "-", "ufixed<6,2>", "fixed<7,3>"),
        ("fixed<8,4>", "+", "ufixed<6,2>", "fixed<9,5>"),
        ("fixed<8,4>", "*", "ufixed<6,2>", "fixed<14,6>"),
        ("ufixed<6,2>", "*", "ufixed<6,2>", "ufixed<12,4>"),
        ("fixed<4,6>", "+", "fixed<4,-2>", "fixed<13,7>"),
        ("fixed<4,6>", "*", "fixed<4,-2>", "fixed<8,4>"),
        ("fixed<8,4,RND,SAT>", "+", "fixed<8,4,RND,SAT>", "fixed<9,5>"),
        ("fixed<8,4>", "+", "int<32>", "fixed<37,33>"),
        ("fixed<8,4>", "*", "int<32>", "fixed<40,36>"),
    ],
)
def test_types_of_exact_results(left: str, op: str, right: str, expected: str) -> None:
    a, b = FixedType.parse(left), FixedType.parse(right)
    assert {"+": a + b, "-": a - b, "*": a * b}[op] == FixedType.parse(expected)


def test_type_of_a_negated_value() -> None:
    assert -FixedType.parse("ufixed<6,2>") == FixedType.parse("fixed<7,3>")
    assert -FixedType.parse("fixed<8,4,RND,SAT>") == FixedType.parse("fixed<9,5>")


def test_operators_want_types_and_room() -> None:
    t = FixedType(8, 4)
    for combine in (lambda: t + 1, lambda: t - 1, lambda: t * 2):  # type: ignore[operator]
        with pytest.raises(TypeError):
            combine()
    assert (FixedType(64, 0) * FixedType(64, 0)).width == 128
    with pytest.raises(PrecisionError, match="width of 160 bits"):
        FixedType(80, 0) * FixedType(80, 0)


# -------------------------------------------------------------------- against the slow model


@EXAMPLES
@given(st.data(), fixed_types(max_width=128))
def test_doubles(data: st.DataObject, t: FixedType) -> None:
    number = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e3, 1e3) | numbers_near(t)
    x = [*data.draw(st.lists(number, min_size=1, max_size=20)), -0.0, 5e-324, -5e-324, 1.7e308, -1.7e308]
    raw = t.to_raw(np.array(x))
    expected = [model(Fraction(v), t) for v in x]
    assert raw.tolist() == expected
    assert t.quantize(x).tolist() == [nearest_double(r, t) for r in expected]


@EXAMPLES
@given(st.data(), fixed_types(), st.sampled_from([np.float16, np.float32]))
def test_narrow_floats(data: st.DataObject, t: FixedType, dtype: type) -> None:
    bits = np.finfo(dtype).bits
    number = st.floats(width=16 if bits == 16 else 32, allow_nan=False, allow_infinity=False)
    x = np.array(data.draw(st.lists(number, min_size=1, max_size=20)), dtype)
    assert t.to_raw(x).tolist() == [model(Fraction(float(v)), t) for v in x]


@EXAMPLES
@given(st.data(), fixed_types(max_width=128), st.sampled_from(["int8", "uint16", "int64", "uint64", "object"]))
def test_integers(data: st.DataObject, t: FixedType, dtype: str) -> None:
    low, high = (-(2**90), 2**90) if dtype == "object" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    numbers = st.integers(low, high) | st.integers(max(low, -40), min(high, 40)) | st.sampled_from([low, high])
    x = data.draw(st.lists(numbers, min_size=1, max_size=20))
    assert t.to_raw(np.array(x, dtype)).tolist() == [model(Fraction(v), t) for v in x]


@settings(EXAMPLES, max_examples=400)
@given(st.data(), fixed_types(max_width=128), fixed_types(max_width=128))
def test_fixed_to_fixed(data: st.DataObject, t: FixedType, source: FixedType) -> None:
    raw = data.draw(raws_of(source))
    expected = raw if t == source else [model(exact(r, source), t) for r in raw]
    assert t.requantize(np.array(raw, source.raw_dtype), source).tolist() == expected
    assert t.requantize(np.array(raw, object), source).tolist() == expected


@EXAMPLES
@given(st.data(), fixed_types(max_width=128))
def test_raw_to_double(data: st.DataObject, t: FixedType) -> None:
    raw = data.draw(raws_of(t))
    expected = [nearest_double(r, t) for r in raw]
    assert t.from_raw(np.array(raw, t.raw_dtype)).tolist() == expected
    assert (t.min, t.max) == (nearest_double(t.raw_min, t), nearest_double(t.raw_max, t))


@pytest.mark.parametrize("fraction_change", [-70, -65, -64, -63, -62, -2, -1, 0, 1, 62, 63, 64, 65, 70])
@pytest.mark.parametrize("signed", [True, False])
def test_shifts_around_the_machine_word(fraction_change: int, signed: bool) -> None:
    source = FixedType(64, 32, signed)
    raw = [
        source.raw_min,
        source.raw_min + 1,
        -(2**62),
        -3,
        -1,
        0,
        1,
        3,
        2**62,
        2**63 - 1,
        2**63,
        2**63 + 1,
        2**64 - 1,
    ]
    raw = [r for r in raw if source.raw_min <= r <= source.raw_max]
    for rounding, overflow, width in itertools.product(Rounding, [Overflow.WRAP, Overflow.SAT], (5, 63, 64)):
        for t_signed in (True, False):
            t = FixedType(width, width - 32 - fraction_change, t_signed, rounding, overflow)
            expected = [model(exact(r, source), t) for r in raw]
            assert t.requantize(np.array(raw, source.raw_dtype), source).tolist() == expected


@pytest.mark.parametrize("width", [62, 63, 64, 65])
@pytest.mark.parametrize("saturation_bits", [0, 1, 2, 5])
def test_folding_at_the_machine_word(width: int, saturation_bits: int) -> None:
    """AP_WRAP_SM looks at one bit above the type."""
    t = FixedType(width, width, True, Rounding.RND, Overflow.WRAP_SM, saturation_bits)
    halves = [k << (width - 1) for k in range(-6, 7)]
    assert t.to_raw(np.array(halves, float)).tolist() == [fit_model(v, t) for v in halves]
    beside = [v + j for v in halves for j in (-1, 0, 1)]
    assert t.to_raw(np.array(beside, object)).tolist() == [fit_model(v, t) for v in beside]
    doubled = FixedType(64, 65)  # steps of 2
    even = [2 * v for v in range(doubled.raw_min, doubled.raw_max + 1, 2**60 - 1)]
    raw = np.array([v // 2 for v in even])
    assert t.requantize(raw, doubled).tolist() == [fit_model(v, t) for v in even]


def test_copying_between_identical_types_keeps_the_bits() -> None:
    t = FixedType(8, 4, overflow=Overflow.SAT_SYM)
    assert t.requantize([-128], t).tolist() == [-128]
    assert t.requantize([-128], t.with_(rounding=Rounding.RND)).tolist() == [-127]


def test_any_layout_and_nothing_is_written_to() -> None:
    t = FixedType(8, 4, rounding=Rounding.RND, overflow=Overflow.SAT)
    x = np.linspace(-20, 20, 60).reshape(3, 4, 5)
    before = x.copy()
    view = x[::-1, ::2, 1:].transpose(2, 0, 1)
    assert np.array_equal(t.to_raw(view), t.to_raw(x)[::-1, ::2, 1:].transpose(2, 0, 1))
    raw = t.to_raw(x).T
    narrow = t.with_(integer=3)
    assert np.array_equal(narrow.requantize(raw, t), narrow.requantize(raw.copy(), t))
    assert np.array_equal(t.from_raw(raw), t.from_raw(raw.copy()))
    assert np.array_equal(x, before)
    same = t.requantize(raw, t)
    same[...] = 0
    assert raw.any()
    assert t.to_raw([True, False]).tolist() == [16, 0]


@pytest.mark.parametrize("x", [np.longdouble(1), 1j, "1.5", np.datetime64(0, "s"), [None], [1.5, None]])
def test_what_is_no_number_is_refused(x: object) -> None:
    with pytest.raises(PrecisionError, match="cannot quantise"):
        FixedType(8, 4).to_raw(x)  # type: ignore[arg-type]


def test_raw_values_are_integers() -> None:
    with pytest.raises(PrecisionError, match="raw values must be integers, not float64"):
        FixedType(8, 4).requantize([0.5], FixedType(16, 6))


# -------------------------------------------------------------------- combining types


@EXAMPLES
@given(st.lists(fixed_types(max_width=20), min_size=1, max_size=4))
def test_union_is_the_smallest_type_that_holds_all(types: list[FixedType]) -> None:
    types = [t.with_(integer=t.integer % 30) for t in types]
    u = union(*types)
    assert (u.rounding, u.overflow, u.saturation_bits) == (Rounding.TRN, Overflow.WRAP, 0)
    assert all(u.holds(t) for t in types)
    if u.width > 1:
        lower_top, coarser = u.with_(width=u.width - 1, integer=u.integer - 1), u.with_(width=u.width - 1)
        assert not all(lower_top.holds(t) for t in types)
        assert not all(coarser.holds(t) for t in types)
    assert u.signed == any(t.signed for t in types)


def test_union_of_nothing_is_refused() -> None:
    with pytest.raises(PrecisionError, match="at least one"):
        union()
    with pytest.raises(PrecisionError, match="width of 164 bits"):
        union(FixedType(64, 0), FixedType(64, 100))


def test_holds_is_what_assigning_every_value_shows() -> None:
    shapes = itertools.product((1, 2, 4), (-1, 0, 1, 2, 5), (True, False), [Overflow.WRAP, Overflow.SAT_SYM])
    types = [FixedType(w, i, s, Rounding.RND, o) for w, i, s, o in shapes]
    answers = set()
    for t, other in itertools.product(types, types):
        raw = np.arange(other.raw_min, other.raw_max + 1)
        unchanged = np.array_equal(t.from_raw(t.requantize(raw, other)), other.from_raw(raw))
        assert t.holds(other) == unchanged, (t, other)
        answers.add(unchanged)
    assert answers == {True, False}


@EXAMPLES
@given(fixed_types(max_width=40), st.integers(1, 5000))
def test_grow_holds_the_sum_of_extremes(t: FixedType, n: int) -> None:
    total = grow(t, n)
    assert (total.fraction, total.signed) == (t.fraction, t.signed)
    assert total.raw_min <= n * t.raw_min
    assert n * t.raw_max <= total.raw_max
    assert total.width == t.width + math.ceil(math.log2(n))


def test_grow_needs_a_value() -> None:
    assert grow(FixedType(8, 4, True, Rounding.RND, Overflow.SAT), 1) == FixedType(8, 4)
    with pytest.raises(PrecisionError, match="sum of 0 values"):
        grow(FixedType(8, 4), 0)


@EXAMPLES
@given(fixed_types(max_width=60), fixed_types(max_width=60))
def test_result_types_hold_the_extreme_results(a: FixedType, b: FixedType) -> None:
    a, b = a.with_(integer=a.width // 2), b.with_(integer=b.width // 3)
    ends = [(exact(x, a), exact(y, b)) for x in (a.raw_min, a.raw_max) for y in (b.raw_min, b.raw_max)]
    for t, results in (
        (a + b, [x + y for x, y in ends]),
        (a - b, [x - y for x, y in ends]),
        (a * b, [x * y for x, y in ends]),
        (-a, [-x for x, _ in ends]),
    ):
        assert all(exact(t.raw_min, t) <= r <= exact(t.raw_max, t) for r in results)
        assert all((r * Fraction(2) ** t.fraction).denominator == 1 for r in results)


# -------------------------------------------------------------------- what the reference headers answered


def golden_type(width: int, integer: int, signed: int, q: int, o: int, n: int) -> FixedType:
    return FixedType(width, integer, bool(signed), list(Rounding)[q], list(Overflow)[o], n)


def test_reference_headers_agree() -> None:
    folder = golden("ap_fixed")
    checked = 0
    with np.load(folder / "assign.npz") as data:
        types, index, source_raw, result = (data[k] for k in ("types", "type_index", "source", "result"))
    for k, (width, integer, signed, *target) in enumerate(types.tolist()):
        t, cases = golden_type(*target), index == k
        raw = t.requantize(source_raw[cases], FixedType(width, integer, bool(signed)))
        assert raw.tolist() == result[cases].tolist(), t
        checked += raw.size
    with np.load(folder / "from_double.npz") as data:
        types, values, result = (data[k] for k in ("types", "values", "result"))
    for target, expected in zip(types.tolist(), result, strict=True):
        t = golden_type(*target)
        raw = t.to_raw(values)
        assert raw.tolist() == expected.tolist(), t
        checked += raw.size
    assert checked > 100_000


def test_reference_headers_agree_on_result_types() -> None:
    with np.load(golden("ap_fixed") / "operators.npz") as data:
        pairs, expected = data["pairs"], [data[f"{op}_type"] for op in ("add", "sub", "mul")]
    assert len(pairs) > 100
    for (w, i, s, w2, i2, s2), *answers in zip(pairs.tolist(), *expected, strict=True):
        a, b = FixedType(w, i, bool(s)), FixedType(w2, i2, bool(s2))
        for t, answer in zip((a + b, a - b, a * b), answers, strict=True):
            assert [t.width, t.integer, t.signed] == answer.tolist(), (a, b)


# -------------------------------------------------------------------- the type of given values


def doubles(reach: int) -> st.SearchStrategy[float]:
    """Few and many significant bits, anywhere within about 2**-reach to 2**reach."""
    return st.builds(
        math.ldexp, st.integers(-40, 40) | st.integers(-(2**53), 2**53), st.integers(-8, 8) | st.integers(-reach, reach)
    )


def holds_values(t: FixedType, values: list[float]) -> bool:
    return all(exact(raw, t) == Fraction(v) for raw, v in zip(t.to_raw(values), values, strict=True))


@EXAMPLES
@given(values=st.lists(doubles(70), min_size=1, max_size=8), max_width=st.sampled_from([32, 64, 128]))
def test_exact_type_is_the_smallest_that_holds_the_values(values: list[float], max_width: int) -> None:
    t = exact_type(np.array(values), max_width)
    assert t.signed == any(v < 0 for v in values)
    if (t.rounding, t.overflow) == (Rounding.RND, Overflow.SAT):
        assert t.width == max_width
        assert not holds_values(t.with_(overflow=Overflow.WRAP), values)
        return
    assert t == FixedType(t.width, t.integer, t.signed)
    assert holds_values(t, values)
    if t.width > 1:
        fewer = [FixedType(t.width - 1, t.integer - top, t.signed) for top in (0, 1)]
        assert not any(holds_values(smaller, values) for smaller in fewer)


@EXAMPLES
@given(values=st.lists(doubles(400), min_size=1, max_size=8), max_width=st.integers(1, 64))
def test_exact_type_keeps_the_integer_bits(values: list[float], max_width: int) -> None:
    t = exact_type(np.array(values), max_width)
    assert t.width <= max_width
    for v in map(Fraction, values):
        assert -(Fraction(2) ** (t.integer - 1)) * t.signed <= v < Fraction(2) ** (t.integer - t.signed)
        nearest = min(max(round_model(v * Fraction(2) ** t.fraction, Rounding.RND), t.raw_min), t.raw_max)
        assert t.to_raw(float(v)) == nearest
    if any(values):  # one integer bit less would be too few
        half = Fraction(2) ** (t.integer - 1 - t.signed)
        assert not all(-half * t.signed <= Fraction(v) < half for v in values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], FixedType(1, 1, signed=False)),
        ([0.125], FixedType(1, -2, signed=False)),
        ([2.0**40], FixedType(1, 41, signed=False)),
        ([-1.0], FixedType(1, 1)),
        ([-0.25, 0.0], FixedType(1, -1)),
        ([-1.0, 1.0], FixedType(2, 2)),
        ([0.5, 4.0], FixedType(4, 3, signed=False)),
        ([[3.0, -4.0], [0.0, 1.0]], FixedType(3, 3)),
        ([0.0, -0.0], FixedType(1, 1, signed=False)),
        ([], FixedType(1, 1, signed=False)),
        ([0.1], FixedType(32, -3, False, Rounding.RND, Overflow.SAT)),
        ([2.0**31, 0.5], FixedType(32, 32, False, Rounding.RND, Overflow.SAT)),
        ([-(2.0**30), 0.5], FixedType(32, 31)),
        ([2.0**40, 1.0], FixedType(32, 41, False, Rounding.RND, Overflow.SAT)),
    ],
)
def test_exact_type_of(values: list[float], expected: FixedType) -> None:
    assert exact_type(np.array(values)) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_exact_type_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(PrecisionError, match=f"no type holds {bad}"):
        exact_type(np.array([1.0, bad]))


@pytest.mark.parametrize("values", [[1.0, 1e300], [1e-300]])
def test_exact_type_refuses_what_no_binary_point_reaches(values: list[float]) -> None:
    with pytest.raises(PrecisionError, match="integer bits: must be -512 to 512"):
        exact_type(np.array(values))
