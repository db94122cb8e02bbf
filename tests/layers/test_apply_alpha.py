"""The scale of quantised weights as a layer of its own, and what is inferred for its numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from kconvert import FixedType
from kconvert.layers import ApplyAlpha, Dense, Node
from kconvert.optimizers import apply_settings, infer_types
from tests import reference
from tests.layers.common import assert_exact, inputs_of
from tests.layers.handmade import SHAPES, compiled, graph

POWERS = np.array([0.5, 0.125, 2.0, 1.0, 0.5, 4.0])
ANY = np.array([0.3, -1.7, 0.001, 2.5, 0.0, 11.1])

TYPES = {
    "inferred": {},
    "narrow-wrap": {"scale": "ap_fixed<6,3>", "bias": "ap_fixed<6,3>", "result": "ap_fixed<6,3>"},
    "saturates": {"result": "ap_ufixed<7,3,AP_RND_CONV,AP_SAT>"},
    "unsigned-scale": {"scale": "ap_ufixed<5,-1,AP_RND,AP_SAT>", "result": "ap_fixed<9,2,AP_TRN_ZERO,AP_SAT_SYM>"},
}
INPUTS = ["ap_fixed<16,6,AP_RND,AP_SAT>", "ap_ufixed<7,0>", "ap_int<12>"]


def layers() -> list[tuple[str, Node]]:
    found: list[tuple[str, Node]] = []
    for source, shape in SHAPES.items():
        n = shape[-1]
        found += [
            (source, ApplyAlpha(name=f"{source}_powers", scale=POWERS[:n], bias=np.zeros(n))),
            (source, ApplyAlpha(name=f"{source}_any", scale=ANY[:n], bias=ANY[::-1][:n] / 3)),
            (source, ApplyAlpha(name=f"{source}_shared", scale=np.array([0.3]), bias=np.array([-1.5]))),
        ]
    return found


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("setting", TYPES)
def test_every_rank(setting: str, kind: str) -> None:
    types = {node.name: TYPES[setting] for _, node in layers()} | {name: {"result": kind} for name in SHAPES}
    hls_model = compiled(layers(), types)
    assert_exact(hls_model, inputs_of(hls_model))


def test_inferred_types_lose_nothing() -> None:
    scale, bias = np.array([0.5, -3.0, 0.125, 8.0, 0.0, 0.625]), np.array([0.0, 0.25, -1.0, 100.0, 2.0**-12, 0.5])
    hls_model = compiled([("vector", ApplyAlpha(name="alpha", scale=scale, bias=bias))])
    kind = hls_model["vector"].output.known_type()
    x = np.random.default_rng(0).integers(kind.raw_min, kind.raw_max + 1, (300, 6)) * kind.step
    assert np.array_equal(hls_model.predict(x), x * scale + bias)


def inferred(scale: float, bias: float | list[float], types: Mapping[str, str] | None = None) -> ApplyAlpha:
    node = ApplyAlpha(
        name="alpha", scale=np.broadcast_to(scale, 6).astype(float), bias=np.broadcast_to(bias, 6).astype(float)
    )
    hls_model = graph([("vector", node)], {"alpha": types or {}})
    for step in (apply_settings, infer_types):
        step.run(hls_model)
    return node


def test_a_power_of_two_is_one_bit() -> None:
    node = inferred(0.125, [1, 2, 4, 1, 1, 1])
    assert node.typed("scale") == FixedType(1, -2, signed=False)
    assert node.typed("bias") == FixedType(3, 3, signed=False)


def test_a_number_without_end_keeps_32_bits() -> None:
    node = inferred(0.3, -5.3)
    assert str(node.typed("scale")) == "ap_ufixed<32,-1,AP_RND,AP_SAT>"
    assert str(node.typed("bias")) == "ap_fixed<32,4,AP_RND,AP_SAT>"


def test_a_type_in_the_settings_is_taken() -> None:
    node = inferred(0.3, 0.5, {"scale": "ap_fixed<8,1>", "result": "ap_fixed<9,4>"})
    assert [str(node.typed(role)) for role in node.roles] == ["ap_fixed<8,1>", "ap_ufixed<1,0>", "ap_fixed<9,4>"]


def test_the_sum_before_it_stays_lossless() -> None:
    dense = Dense(name="fc", weight=np.eye(6)[:, :4], bias=np.zeros(4))
    alpha = ApplyAlpha(name="alpha", scale=np.full(4, 0.625), bias=np.ones(4))
    hls_model = graph([("vector", dense), ("fc", alpha)])
    hls_model.outputs = [alpha.output]
    for step in (apply_settings, infer_types):
        step.run(hls_model)
    assert dense.typed("result") == dense.typed("accum")
    assert alpha.typed("result") == dense.typed("accum") * alpha.typed("scale") + alpha.typed("bias")


def test_it_means_a_scale_and_a_bias() -> None:
    hls_model = graph(layers())
    x = [np.random.default_rng(0).normal(size=(5, *shape)) for shape in SHAPES.values()]
    answers = reference.run_float(hls_model, x)
    assert np.array_equal(answers[0], x[0] * POWERS)
    assert np.array_equal(answers[5], x[1] * 0.3 - 1.5)
    assert np.array_equal(answers[7], x[2] * ANY[:2] + ANY[::-1][:2] / 3)
