"""Sums of approximate products: compiled through tables on every path, and as a few exact products."""

from __future__ import annotations

import numpy as np
import pytest

from kconvert_contrib.approx import ApproxError, LowRank, TableProduct, low_rank

CODES = np.arange(-128, 128)
EXACT = np.multiply.outer(CODES, CODES)


def available() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        flags = set()
    return ["portable", *(path for path in ("avx2", "avx512vbmi") if path in flags)]


def products(table: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Sums over k of table[x[m, k]][w[k, n]], spelled out."""
    return table[x.astype(int)[:, :, None] + 128, w.astype(int)[None] + 128].sum(axis=1)


def codes(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape, dtype=np.int8)


@pytest.mark.parametrize("path", available())
def test_every_path_sums_extreme_products_exactly(path: str):
    rng = np.random.default_rng(1)
    for table in (rng.integers(-32767, 32768, (256, 256)), np.full((256, 256), -32767), np.full((256, 256), 32767)):
        x, w = codes(2, 300, 530), codes(3, 530, 3)
        assert (TableProduct(table, path=path, threads=1).matrix(x, w) == products(table, x, w)).all()


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 128, 129, 200, 256, 257])
def test_any_number_of_rows(rows: int):
    x, w = codes(4, rows, 7), codes(5, 7, 4)
    table = EXACT // 2
    assert (TableProduct(table).matrix(x, w) == products(table, x, w)).all()


@pytest.mark.parametrize(
    ("strides", "dilation", "pads", "groups"),
    [
        ((1, 1), (1, 1), ((0, 0), (0, 0)), 1),
        ((1, 1), (1, 1), ((1, 1), (0, 2)), 1),
        ((2, 3), (1, 1), ((0, 1), (1, 1)), 1),
        ((1, 1), (2, 1), ((2, 2), (1, 1)), 1),
        ((1, 2), (1, 2), ((1, 0), (2, 1)), 4),
    ],
)
def test_convolutions(strides, dilation, pads, groups):
    table = EXACT + 3 * CODES[:, None] - CODES + 5  # code 0 has errors too, so that padding is seen
    x, w = codes(6, 3, 9, 8, 4), codes(7, 3, 2, 4 // groups, 8)
    answer = TableProduct(table, threads=2).convolution(x, w, strides, dilation, pads, groups)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    inputs, outputs = 4 // groups, 8 // groups
    for row, column in np.ndindex(answer.shape[1:3]):
        top, left = row * strides[0], column * strides[1]
        field = padded[:, top : top + 2 * dilation[0] + 1 : dilation[0], left : left + dilation[1] + 1 : dilation[1]]
        for group in range(groups):
            flat = field[..., group * inputs : (group + 1) * inputs].reshape(3, -1)
            chosen = slice(group * outputs, (group + 1) * outputs)
            kernel = w[..., chosen].reshape(-1, outputs)
            assert (answer[:, row, column, chosen] == products(table, flat, kernel)).all()
    assert answer.shape[1] == (padded.shape[1] - 2 * dilation[0] - 1) // strides[0] + 1
    assert answer.shape[2] == (padded.shape[2] - dilation[1] - 1) // strides[1] + 1


def test_threads_do_not_change_the_answer():
    x, w = codes(8, 40, 20, 20, 3), codes(9, 5, 5, 3, 24)
    one, four = (TableProduct(EXACT // 3, threads=n).convolution(x, w) for n in (1, 4))
    assert (one == four).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ApproxError, match="16-bit"):
        TableProduct(EXACT * 4)
    with pytest.raises(ApproxError, match="path"):
        TableProduct(EXACT, path="sse")
    with pytest.raises(ApproxError, match="fit"):
        TableProduct(EXACT).matrix(codes(1, 3, 4), codes(1, 5, 2))
    with pytest.raises(ApproxError, match="32 bits"):
        TableProduct(EXACT).matrix(np.zeros((1, 70000), np.int8), np.zeros((70000, 1), np.int8))
    with pytest.raises(ApproxError, match="threads"):
        TableProduct(EXACT, threads=0)


def test_truncated_operands_have_few_terms_and_nothing_is_left():
    error = EXACT - np.multiply.outer(CODES >> 3 << 3, CODES >> 2 << 2)
    terms = low_rank(error)
    assert terms.rank == 2
    assert terms.exact
    assert np.array_equal(np.round(terms.left @ terms.right.T)[1:, 1:], error[1:, 1:])
    assert low_rank(np.zeros((256, 256))).rank == 0


def test_the_bound_holds_and_is_not_wasted():
    sign = np.sign(EXACT)
    error = EXACT - sign * 2 ** np.floor(np.log2(np.maximum(abs(EXACT), 1))).astype(int)  # far from any small rank
    assert not low_rank(error, bound=0.2).exact
    for bound in (0.5, 0.2, 0.05):
        terms = low_rank(error, bound=bound)
        assert measured(terms, error) == pytest.approx(terms.rms_error)
        assert terms.rms_error <= bound
        fewer = LowRank(terms.left[:, :-1], terms.right[:, :-1], 0.0, 0.0)
        assert measured(fewer, error) > bound


def measured(terms: LowRank, error: np.ndarray) -> float:
    left = (terms.left @ terms.right.T - error)[1:, 1:]
    return float(np.sqrt(np.mean(left**2) / np.mean(error[1:, 1:].astype(float) ** 2)))


def test_terms_serve_the_codes_that_occur():
    error = np.random.default_rng(1).integers(-50, 50, (256, 256))
    often = np.exp(-((CODES / 10.0) ** 2))
    plain, fitted = low_rank(error, bound=0.6), low_rank(error, bound=0.6, weights=(often, often))
    assert fitted.rank < plain.rank
    share = np.multiply.outer(often, often)[1:, 1:]
    left = ((fitted.left @ fitted.right.T - error)[1:, 1:] ** 2 * share).sum() / (error[1:, 1:] ** 2 * share).sum()
    assert left < 0.4  # the square of 0.6, and a little for codes that hardly occur


def test_low_rank_refuses_what_makes_no_sense():
    with pytest.raises(ApproxError, match="256"):
        low_rank(np.zeros((4, 4)))
    with pytest.raises(ApproxError, match="bound"):
        low_rank(np.zeros((256, 256)), bound=1.0)
    with pytest.raises(ApproxError, match="weights"):
        low_rank(np.zeros((256, 256)), weights=(np.zeros(256), np.ones(256)))
