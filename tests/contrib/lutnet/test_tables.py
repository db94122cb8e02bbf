"""Truth tables from trained weights, against the sums they stand for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kconvert.errors import InputError, ModelError
from kconvert_contrib.lutnet.tables import LutArray, any_table, differentiable_tables, lut_array, majority_table, smooth
from tests.conftest import golden
from tests.contrib.lutnet.reference import multilinear

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("n", range(2, 7))
def test_smoothing_is_the_multilinear_read_at_a_quarter_and_three(n):
    table = RNG.random((3, 2**n)).astype(np.float32)
    corners = 0.25 + 0.5 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    expected = np.stack([[multilinear(row, corner) for corner in corners] for row in table])
    np.testing.assert_allclose(smooth(table), expected, rtol=3e-7)


@pytest.mark.parametrize("beta", [0.5, 0.3, 0.65])
@pytest.mark.parametrize("binary", [True, False])
def test_an_entry_is_the_thresholded_normalised_read(binary, beta):
    table = RNG.normal(0.5, 0.1, (20, 64)).astype(np.float32)
    mean, variance = RNG.normal(0.5, 0.02, 20).astype(np.float32), RNG.uniform(1e-4, 1e-2, 20).astype(np.float32)
    found = differentiable_tables(table, binary=binary, statistics=(mean, variance), gamma=0.3, beta=beta)
    z = (smooth(table) if binary else table).astype(np.float64)
    t = 0.3 * (z - mean[:, None]) / np.sqrt(variance[:, None].astype(np.float64)) + beta
    sure = abs(t - 0.5) > 1e-5
    assert (found == (t > 0.5))[sure].all()
    assert sure.mean() > 0.99
    assert 0.05 < found.mean() < 0.95


def test_entries_may_be_read_as_bits():
    table = RNG.random((4, 64)).astype(np.float32)
    assert (differentiable_tables(table, binary=False, lut_binarize=True) == (table > 0.5)).all()
    smoothed = smooth((table > 0.5).astype(np.float32))
    assert (differentiable_tables(table, lut_binarize=True) == (smoothed > 0.5)).all()


def test_majority_and_any():
    ones = [bin(a).count("1") for a in range(64)]
    assert majority_table(6).tolist() == [n >= 4 for n in ones]
    assert any_table(6).tolist() == [n > 0 for n in ones]


def test_words_and_evaluation_follow_the_bits():
    tables, wiring = RNG.random((7, 64)) > 0.5, RNG.integers(0, 9, (7, 6))
    array = LutArray(tables, wiring)
    bits = RNG.random((30, 9)) > 0.5
    for unit, word in enumerate(array.words.tolist()):
        assert word == sum(int(bit) << a for a, bit in enumerate(tables[unit]))
        address = sum(bits[:, wiring[unit, i]].astype(int) << i for i in range(6))
        assert array(bits)[:, unit].tolist() == [bool(word >> a & 1) for a in address.tolist()]
    with pytest.raises(InputError, match="only 4 inputs"):
        array(bits[:, :4])


def test_what_is_no_lut_layer_is_refused():
    with pytest.raises(ModelError, match="'Dense' is no layer of look-up tables"):
        lut_array("Dense", {}, [])
    with pytest.raises(ModelError, match="expected 4 weight arrays, received 1"):
        lut_array("DifferentiableLut", {"n_inputs": 6, "batch_norm": True}, [np.zeros((1, 64))])
    config = {"n_inputs": 6, "batch_norm": False, "binary": True, "lut_binarize": False}
    with pytest.raises(ModelError, match="do not fit each other"):
        lut_array("DifferentiableLut", config, [np.zeros((2, 64)), np.zeros((3, 6), int)])


@pytest.mark.parametrize("case", ["binary_bn", "binary_nobn", "real_bn", "serial"])
def test_tables_of_the_original(case):
    data = np.load(golden("lutnet") / f"dlut_{case}.npz")
    statistics = (data["running_mean"], data["running_var"]) if data["batch_norm"] else ()
    gamma, beta = float(data["gamma"]), float(data["beta"])
    found = differentiable_tables(data["W"], binary=bool(data["binary"]), statistics=statistics, gamma=gamma, beta=beta)
    assert (found == data["table"]).all()


def test_tables_need_no_keras():
    program = "import sys, kconvert_contrib.lutnet as l; l.lut_array; print({'keras', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
