"""Our kmodels against those of the original compiler, case by case: errors, memory, registers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kconvert.kpu import KModel
from kconvert.kpu import nodes as n
from kconvert.kpu.wire import Memory
from tests.kpu_compiler.golden_cases import Case, cases, compiled, flat

ALL = cases()
NAMES = [f"{c.name}-{c.variant}" for c in ALL]
# The order of the sums in calibration moves a range by a unit in the last place.
ROUNDING = 1e-6


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_error_is_no_larger_than_that_of_the_original(case: Case) -> None:
    ours = np.abs(flat(compiled(case).infer(case.inputs)) - case.expected).mean()
    theirs = np.abs(flat(case.original.infer(case.inputs)) - case.expected).mean()
    assert ours <= theirs * (1 + ROUNDING) + 1e-8


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_memory_is_no_more_than_that_of_the_original(case: Case) -> None:
    model = compiled(case)
    assert model.main_memory <= case.original.main_memory == case.meta["main_mem"]
    model.check()


@pytest.mark.parametrize("case", [c for c in ALL if c.variant == "model"], ids=lambda c: c.name)
def test_input_is_where_the_original_has_it_or_nearer(case: Case) -> None:
    mine, theirs = compiled(case).inputs[0], case.original.inputs[0]
    assert mine.shape == theirs.shape
    assert mine.range.datatype == theirs.range.datatype
    if theirs.range.memory is Memory.KPU:
        assert mine.range.memory is Memory.KPU


# The cases whose KPU layers the original has without a defect and in the same form.
ALIKE = [
    c
    for c in ALL
    if c.variant in ("model", "model_l2", "model_f32in")
    and c.name not in ("08b_ae_convT", "12_valid_sigmoid", "27_dilated", "31_flatten_matmul", "absent")
]


def layers(model: KModel) -> list[n.KpuConv2D]:
    return [node for node in model.nodes if isinstance(node, n.KpuConv2D)]


def pairs(case: Case) -> list[tuple[n.KpuConv2D, n.KpuConv2D]]:
    """Return our layers and the original's; those of 26_mul do not depend on each other and may be in any order."""
    mine, theirs = layers(compiled(case)), layers(case.original)
    if case.name == "26_mul":
        mine.sort(key=lambda layer: layer.registers.kernel)
        theirs.sort(key=lambda layer: layer.registers.kernel)
    return list(zip(mine, theirs, strict=True))


@pytest.mark.parametrize("case", ALIKE, ids=lambda c: f"{c.name}-{c.variant}")
def test_registers_and_weights_are_those_of_the_original(case: Case) -> None:
    places = {name: 0 for name in ("image_src_addr", "image_dst_addr", "send_data_out")}
    for a, b in pairs(case):
        assert dataclasses.replace(a.registers, **places) == dataclasses.replace(b.registers, **places)
        assert (a.weights != b.weights).mean() <= 0.001
        assert np.abs(a.weights.astype(int) - b.weights).max() <= 1


@pytest.mark.parametrize("case", ALIKE, ids=lambda c: f"{c.name}-{c.variant}")
def test_batch_norm_tables_are_those_of_the_original(case: Case) -> None:
    """Where there is no curve behind: our curves get more bits."""
    for a, b in pairs(case):
        if np.count_nonzero(a.activation.mul) > 1:
            continue
        np.testing.assert_array_equal(a.norm.shift, b.norm.shift)
        np.testing.assert_allclose(a.norm.mul, b.norm.mul, rtol=1e-5)
        np.testing.assert_allclose(a.norm.add, b.norm.add, rtol=1e-5, atol=2)
        assert (a.activation.mul[1], a.activation.shift[1]) == (b.activation.mul[1], b.activation.shift[1])
        assert abs(a.activation.start[1] - b.activation.start[1]) <= 4  # of 2^22


def test_every_kind_of_defect_is_mended_where_the_golden_data_shows_it() -> None:
    """A sigmoid that fell to 0 below its calibrated minimum."""
    case = Case("21_conv_sigmoid", "model")
    ours = np.abs(flat(compiled(case).infer(case.inputs)) - case.expected).max()
    theirs = np.abs(flat(case.original.infer(case.inputs)) - case.expected).max()
    assert ours < 0.01 < 0.3 < theirs


@pytest.mark.parametrize("case", [c for c in ALL if c.variant == "model"][:6], ids=lambda c: c.name)
def test_what_is_compiled_is_written_and_read_back(case: Case, tmp_path) -> None:
    model = compiled(case)
    model.save(tmp_path / "a.kmodel")
    assert KModel.load(tmp_path / "a.kmodel").to_bytes() == model.to_bytes()
