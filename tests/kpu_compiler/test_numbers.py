"""Functions, multipliers, ranges, activation tables, memory plans: the parts that are only numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kconvert.errors import CapacityError
from kconvert.kpu import nnil
from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.activation import Domain, activation_table, levels
from kconvert.kpu.compiler.calibration import BINS, LEVELS, least_squares_range
from kconvert.kpu.compiler.memory import Buffer, bytes_alive, plan, plan_kpu
from kconvert.kpu.compiler.numbers import Range, dequantised, fixed_mul, fixed_up, quant_param, quantised
from kconvert.kpu.compiler.quantise import equalised, normalisation
from kconvert.kpu.k210 import Activation
from kconvert.kpu.wire import QuantParam

# ***** functions *****

X = np.linspace(-6, 6, 1001).astype(np.float32)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (fn.sigmoid(), 1 / (1 + np.exp(-X))),
        (fn.tanh(), np.tanh(X)),
        (fn.elu(), np.where(X > 0, X, np.expm1(X))),
        (fn.leaky_relu(0.2), np.where(X > 0, X, 0.2 * X)),
        (fn.leaky_relu(3.0), np.where(X > 0, X, 3 * X)),
        (fn.leaky_relu(-1.0), np.abs(X)),
        (fn.hard_swish(), X * np.clip(X + 3, 0, 6) / 6),
        (fn.RELU6, np.clip(X, 0, 6)),
        (fn.gelu_tanh(), X * 0.5 * (1 + np.vectorize(math.erf)(X / math.sqrt(2)))),
        (fn.sqrt().of(fn.RELU), np.sqrt(np.maximum(X, 0))),
    ],
)
def test_activations(expr: fn.Expr, expected: np.ndarray) -> None:
    np.testing.assert_allclose(expr(X), expected, atol=1e-3 if expr == fn.gelu_tanh() else 2e-6, rtol=1e-5)


@pytest.mark.parametrize("value", [-1e4, 1e4])
@pytest.mark.parametrize("expr", [fn.sigmoid(), fn.tanh(), fn.gelu_tanh(), fn.elu()])
def test_activations_are_numbers_everywhere(expr: fn.Expr, value: float) -> None:
    assert np.isfinite(expr(np.array([value], np.float32))).all()


def test_functions_of_functions_and_their_code() -> None:
    inner, outer = fn.X * 2.0 + 1.0, fn.tanh()
    np.testing.assert_array_equal(outer.of(inner)(X), outer(inner(X)))
    code = outer.of(inner).encode()
    assert nnil.decode(code)[0].op is nnil.Op.CONSTANT
    assert nnil.encode(nnil.decode(code)) == code


def test_what_would_not_fit_the_stack_is_not_acceptable() -> None:
    deep = fn.X
    for _ in range(70):
        deep = fn.binary(nnil.Op.ADD, 1.0, deep)
    assert not deep.acceptable
    assert fn.gelu_tanh().acceptable


# ***** numbers *****


@given(st.floats(1e-6, 1e6), st.integers(8, 31), st.integers(10, 40), st.sampled_from([-1, 1]))
def test_a_multiplier_is_near_its_value(value: float, bits: int, shift: int, sign: int) -> None:
    value = float(np.float32(value)) * sign
    assume(abs(value) < 1 << bits - 1)
    made = fixed_mul(value, bits, shift)
    assert abs(made.rounded) <= 1 << bits - 1
    assert made.shift <= shift
    # The last bit that is kept is worth 2^-shift.
    assert abs(made.rounded / 2.0**made.shift - value) <= 0.5001 * 2.0**-made.shift + abs(value) * 1e-7


def test_multipliers_by_hand() -> None:
    assert fixed_mul(0.0, 22, 255) == (0.0, 0)
    assert fixed_mul(0.75, 22, 255) == (0.75 * 2**21, 21)
    assert fixed_mul(3.0, 22, 15) == (3 * 2**15, 15)
    assert fixed_mul(-1e30, 16, 20) == (-(2**15 - 1), 0)


def test_ranges_are_fixed_up() -> None:
    assert fixed_up(0.2, 0.2) == pytest.approx((0.0, 0.3))
    assert fixed_up(-0.5, -0.495) == (-0.5, 0.0)
    assert fixed_up(-5000, 5000) == (-1000, 1000)
    assert fixed_up(1.0, 3.0) == (0.0, 3.0)


@given(st.floats(-1000, 0), st.floats(0, 1000))
def test_quantised_values_come_back(low: float, high: float) -> None:
    found = fixed_up(low, high)
    param = quant_param(found)
    assert 0 <= param.zero_point <= 255
    values = np.linspace(found.low, found.high, 100, dtype=np.float32)
    back = dequantised(quantised(values, param), param)
    assert np.abs(back - values).max() <= 1.01 / param.scale
    assert dequantised(quantised(np.zeros(1), param), param)[0] == 0


def test_channels_fill_the_range_of_all() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weights *= np.array([1, 0.1, 0.01, 0], np.float32)[:, None, None, None]
    scaled, factors = equalised(weights)
    assert scaled.min() >= weights.min() * 1.0001
    assert scaled.max() <= weights.max() * 1.0001
    np.testing.assert_allclose(scaled / factors[:, None, None, None], weights, rtol=1e-6)
    assert factors[3] == 1
    assert factors[2] > factors[1] > factors[0] >= 1


@given(st.floats(1e-3, 1e3), st.floats(1e-2, 1e4), st.floats(0, 1e4))
def test_batch_norm_fits_its_fields(weight_scale: float, y_scale: float, bias: float) -> None:
    norm, scale = normalisation(
        np.array([bias, -bias], np.float32), np.array([1, 100], np.float32), 255 * weight_scale, y_scale, None
    )
    norm.pack()
    assert scale > 0


@pytest.mark.parametrize("product_scale", [1e2, 1e4, 1e6, 1e8, 1e10])
@pytest.mark.parametrize("y_scale", [1e-1, 40.0, 2e4])
def test_a_straight_layer_gives_its_bias(product_scale: float, y_scale: float) -> None:
    """Whatever the scales: where all products are 0, what comes out is the bias."""
    out = QuantParam(100, y_scale)
    bias = ((np.array([3, 80, 100, 170, 250]) - 100) / y_scale).astype(np.float32)
    norm, scale = normalisation(bias, np.ones(5, np.float32), product_scale, y_scale, None)
    table = activation_table(Domain(-100 / y_scale, 155 / y_scale), None, scale, out)
    norm.pack()
    table.pack()
    np.testing.assert_allclose(through(table, norm.add), [3, 80, 100, 170, 250], atol=1)


# ***** the range that loses least *****


def losses_one_by_one(counts: np.ndarray, zero_bin: int) -> tuple[int, int]:
    """Try every part of the range, as it is described."""
    place = np.arange(BINS, dtype=np.float64)
    best = (np.inf, 0, 0)
    for low in range(zero_bin + 1):
        for high in range(BINS, max(low + LEVELS, zero_bin) - 1, -1):
            step = (high - low) / (LEVELS - 1)
            nearest = low + np.clip(np.rint((place - low) / step), 0, LEVELS - 1) * step
            loss = float((counts * (place - nearest) ** 2).sum())
            if loss < best[0]:
                best = (loss, low, high)
    return best[1], best[2]


@pytest.mark.parametrize("whole", [Range(0.0, 2.0), Range(-0.01, 2.0)])
def test_least_squares_by_brute_force(whole: Range) -> None:
    rng = np.random.default_rng(3)
    values = np.clip(rng.exponential(0.15, 20000), 0, 2)
    interval = (whole.high - whole.low) / BINS
    counts = np.bincount(((values - whole.low) / interval).astype(int).clip(0, BINS - 1), minlength=BINS)
    low, high = losses_one_by_one(counts, int(-whole.low / interval))
    found = least_squares_range(counts, whole)
    assert found == pytest.approx((whole.low + low * interval, whole.low + high * interval), rel=1e-5)
    assert found.high < 2


# ***** activation tables *****


def through(table: Activation, b: np.ndarray) -> np.ndarray:
    """Return what the KPU makes of integers."""
    segment = np.searchsorted(table.start, b, side="left") - 1
    product = (b - table.start[segment]) * table.mul[segment]
    shift = table.shift[segment]
    half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
    return np.clip(((product + half) >> shift) + table.bias[segment], 0, 255)


CURVES = {
    "sigmoid": fn.sigmoid(),
    "tanh": fn.tanh(),
    "leaky": fn.leaky_relu(0.1),
    "elu": fn.elu(),
    "swish": fn.X * fn.sigmoid(),
    "hard swish": fn.hard_swish(),
    "square": fn.unary(nnil.Op.SQUARE),
    "exp": fn.unary(nnil.Op.EXP),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("ends", [(-5.0, 5.0), (-1.0, 3.0), (0.5, 0.8)])
def test_a_table_is_near_its_curve(name: str, ends: tuple[float, float]) -> None:
    expr = CURVES[name]
    x = np.linspace(*ends, 3001).astype(np.float32)
    y = expr(x)
    out = quant_param(fixed_up(float(y.min()), float(y.max())))
    norm, scale = normalisation(np.zeros(1, np.float32), np.ones(1, np.float32), 3e4, 50.0, out.scale)
    table = activation_table(Domain(*ends), expr, scale, out)
    table.pack()
    norm.pack()
    b = np.rint(x.astype(np.float64) * scale).astype(np.int64)
    off = np.abs(through(table, b) - levels(y, out))
    assert off.mean() < 0.6
    assert off.max() < 3


def test_outside_its_domain_a_table_stays_what_it_is_at_the_ends() -> None:
    out = QuantParam(0, 255.0)
    table = activation_table(Domain(-2.0, 2.0), fn.sigmoid(), 1 << 16, out)
    ends = quantised(fn.sigmoid()(np.array([-2, 2], np.float32)), out)
    np.testing.assert_array_equal(through(table, np.array([-(1 << 34), 1 << 30])), ends)


def test_a_straight_table_is_exact() -> None:
    out = quant_param(Range(-1.0, 3.0))
    scale = out.scale * 2**15
    table = activation_table(Domain(-out.zero_point / out.scale, 3.0), None, scale, out)
    x = np.linspace(-1, 3, 1000)
    assert np.abs(through(table, np.rint(x * scale).astype(np.int64)) - levels(x, out)).max() <= 0.501


# ***** memory *****


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=25),
    st.sampled_from([8, 64]),
)
@settings(deadline=None, max_examples=60)
def test_buffers_that_meet_do_not_share_bytes(spans: list[tuple[int, int, int]], alignment: int) -> None:
    buffers = [Buffer(str(i), size, first, first + more) for i, (size, first, more) in enumerate(spans)]
    total = plan(buffers, alignment, 5.0)
    assert max(bytes_alive(buffers, alignment)) <= total <= sum(-(-b.size // alignment) * alignment for b in buffers)
    assert all(b.start % alignment == 0 and b.end <= total for b in buffers)
    for a, b in itertools.combinations(buffers, 2):
        assert not a.meets(b) or a.end <= b.start or b.end <= a.start


def test_a_plan_needs_no_more_than_what_is_alive_where_that_is_possible() -> None:
    """First fit in the order of the steps leaves a hole here."""
    spans = [(8, 0, 1), (16, 0, 3), (24, 2, 4), (16, 3, 5), (8, 4, 6)]
    buffers = [Buffer("", *span) for span in spans]
    assert plan(buffers, 8) == max(bytes_alive(buffers, 8))


def test_what_does_not_fit_the_kpu_is_explained() -> None:
    buffers = [Buffer("wide", 2_000_000, 0, 1, shape=(1, 64, 200, 150)), Buffer("next", 500_000, 1, 2)]
    with pytest.raises(CapacityError, match=r"KPU memory: 2,500,0.. bytes are needed and there are 2,097,152") as error:
        plan_kpu(buffers, 0)
    assert "'wide' 1x64x200x150: 2,000,000 bytes" in str(error.value)
    order = [str(error.value).index(word) for word in ("height", "channels in", "fewer layers")]
    assert order == sorted(order)
