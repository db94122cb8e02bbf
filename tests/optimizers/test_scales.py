"""Moving scales: out of weights, into each other, and into the thresholds behind them."""

from __future__ import annotations

import numpy as np
import pytest

from kconvert import HLSModel
from kconvert.layers import ApplyAlpha, BatchNormalization, Thresholds
from kconvert.optimizers import apply_settings, fold_scale_into_thresholds, infer_types, join_scales
from tests import reference
from tests.layers.handmade import graph

SCALE = np.array([0.5, -0.25, 3.0, -0.3125, 0.0, -7.0])
BIAS = np.array([0.25, 0.75, -0.125, 0.625, 0.5, 0.0])
INPUT = {"vector": {"result": "ap_fixed<9,5>"}}


def scaled_steps(steps: Thresholds, scale: np.ndarray = SCALE, bias: np.ndarray = BIAS) -> HLSModel:
    alpha = ApplyAlpha(name="alpha", scale=scale, bias=bias)
    hls_model = graph([("vector", alpha), ("alpha", steps)], INPUT)
    hls_model.outputs = [steps.output]
    return hls_model


def answers(hls_model: HLSModel, *passes: object) -> np.ndarray:
    """Return what the typed graph gives for every value of the input's type."""
    for step in (apply_settings, *passes, infer_types):
        step.run(hls_model)  # type: ignore[attr-defined]
    kind = hls_model.inputs[0].known_type()
    x = np.arange(kind.raw_min, kind.raw_max + 1)[:, None] * kind.step * np.ones(6)
    (last,), _ = reference.run(hls_model, x)
    return last


@pytest.mark.parametrize("inclusive", [True, False, (True, False, True)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_thresholds_behind_any_scale(inclusive: bool | tuple[bool, ...], per_channel: bool) -> None:
    # 1/4, 1/2 and 5/8 are hit exactly by values of the input's type, in the channels of negative scale too
    thresholds = np.array([[0.25], [0.5], [0.625]]) + (np.arange(6) / 8 if per_channel else 0)
    made = [
        scaled_steps(
            Thresholds(name="y", thresholds=thresholds, levels=np.array([-1.0, 0.5, 2.0, 3.0]), inclusive=inclusive)
        )
        for _ in range(2)
    ]
    wanted = answers(made[0])
    assert np.array_equal(answers(made[1], fold_scale_into_thresholds), wanted)
    assert "alpha" not in [node.name for node in made[1].nodes]
    assert len(np.unique(wanted, axis=0)) > 3


def test_infinite_thresholds_stay_so() -> None:
    thresholds = np.array([[-np.inf], [0.5], [np.inf]])
    made = [scaled_steps(Thresholds(name="y", thresholds=thresholds, levels=np.arange(4.0))) for _ in range(2)]
    assert np.array_equal(answers(made[1], fold_scale_into_thresholds), answers(made[0]))


def test_two_scales_are_folded_one_after_the_other() -> None:
    def chain() -> HLSModel:
        first = ApplyAlpha(name="first", scale=np.array([-1.5]), bias=np.array([0.25]))
        alpha = ApplyAlpha(name="alpha", scale=SCALE, bias=BIAS)
        steps = Thresholds(name="y", thresholds=np.array([[0.0], [0.25]]), levels=np.array([-1.0, 0.0, 1.0]))
        hls_model = graph([("vector", first), ("first", alpha), ("alpha", steps)], INPUT)
        hls_model.outputs = [steps.output]
        return hls_model

    folded = chain()
    assert np.array_equal(answers(folded, fold_scale_into_thresholds), answers(chain()))
    assert [node.name for node in folded.nodes] == ["vector", "y"]


def test_a_scale_far_from_a_power_of_two_moves_no_step() -> None:
    """(t - b) / s is not a double here: rounding it would move the threshold past the value that hits it."""
    scale = np.full(6, 3.0)
    steps = Thresholds(name="y", thresholds=np.array([[1.0]]), levels=np.array([0.0, 1.0]))
    hls_model = scaled_steps(steps, scale, np.full(6, 1.0 - 3 * 5 / 16))
    got = answers(hls_model, fold_scale_into_thresholds)
    x = np.arange(-256, 256) / 16
    assert np.array_equal(got[:, 0], (x >= 5 / 16).astype(float))


def test_joined_scales_keep_their_product() -> None:
    first = ApplyAlpha(name="one", scale=SCALE, bias=BIAS)
    then = BatchNormalization(name="two", scale=SCALE[::-1].copy(), bias=-BIAS)
    hls_model = graph([("vector", first), ("one", then)])
    hls_model.outputs = [then.output]
    x = np.random.default_rng(0).normal(size=(5, 6))
    before = reference.run_float(hls_model, x)
    assert join_scales.run(hls_model)
    np.testing.assert_allclose(reference.run_float(hls_model, x), before, rtol=1e-12)
