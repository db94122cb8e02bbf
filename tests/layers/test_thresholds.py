"""Step functions: every way a threshold can lie on, between and beyond the values of its input."""

from __future__ import annotations

import numpy as np
import pytest

from kconvert import FixedType
from kconvert.errors import ConfigError, GraphError
from kconvert.layers import Dense, Node, Thresholds
from kconvert.optimizers import apply_settings, infer_types
from tests import reference
from tests.layers.common import assert_exact, samples
from tests.layers.handmade import SHAPES, compiled, graph

# of the input, of the result
TYPES = [
    ("ap_fixed<16,6,AP_RND,AP_SAT>", "auto"),
    ("ap_fixed<6,3>", "ap_fixed<6,3>"),
    ("ap_ufixed<9,3>", "ap_ufixed<3,1,AP_RND_INF,AP_SAT>"),
    ("ap_fixed<8,-2,AP_RND,AP_SAT>", "ap_fixed<4,2,AP_TRN_ZERO,AP_SAT_SYM>"),
    ("ap_fixed<8,12>", "ap_int<2>"),
    ("ap_ufixed<1,1>", "auto"),
    ("ap_fixed<1,1>", "ap_ufixed<1,1>"),
    ("ap_int<8>", "ap_fixed<40,12>"),
    ("ap_fixed<32,14>", "auto"),
    ("ap_fixed<63,20,AP_RND,AP_SAT>", "auto"),
    ("ap_ufixed<63,10>", "ap_fixed<20,3>"),
]
TINY = 5e-324  # vanishes when it is scaled down


def column(*thresholds: float) -> np.ndarray:
    return np.array(thresholds, dtype=float)[:, None]


def layers(kind: FixedType) -> list[tuple[str, Node]]:
    """Return layers whose thresholds lie everywhere around the values of `kind`."""
    step, low, high = kind.step, kind.min, kind.max
    middle = float(kind.from_raw((kind.raw_min + kind.raw_max) // 2))
    ends = [low - 3 * step, low - step, low, low + step / 4, high - step / 4, high, high + step / 4, high + 9 * step]
    per_channel = np.linspace(low - step, high + step, 18).reshape(3, 6)
    cases = {
        "one": (column(middle), [-1.0, 1.0]),
        "sign": (column(0), [0.0, 1.0]),
        "three_levels": (column(-step / 2, step / 2), [-1.0, 0.0, 1.0]),
        "ends": (column(-np.inf, -1e300, *ends, 1e300, np.inf), np.linspace(-1.3, 1.7, 13)),
        "tiny": (column(-step, -TINY, 0, TINY, step), [-3.0, 0.5, 0.75, 0.1, 0.2, 3.0]),
        "equal": (
            column(middle, middle, middle + step, middle + step, middle + step),
            [-3.0, -2.0, 1.0, 0.0, 0.3, 2.0],
        ),
        "per_channel": (per_channel, [-1.0, 0.25, 0.5, 0.75]),
        "all_equal_levels": (column(middle), [0.5, 0.5]),
        "levels_of_channels": (column(middle, high), np.linspace(-1.3, 1.7, 18).reshape(3, 6)),
        "both_of_channels": (per_channel, np.linspace(1.7, -1.3, 24).reshape(4, 6)),
    }
    found: list[tuple[str, Node]] = []
    for source, shape in SHAPES.items():
        for name, (thresholds, levels) in cases.items():
            of_channels = thresholds[:, : shape[-1]]
            own = np.array(levels)[..., : shape[-1]] if np.ndim(levels) == 2 else np.array(levels)
            mixed = tuple(k % 3 == 1 for k in range(len(thresholds)))
            for how, inclusive in (("from", True), ("above", False), ("mixed", mixed)):
                node = Thresholds(
                    name=f"{source}_{name}_{how}",
                    thresholds=of_channels,
                    levels=own,
                    inclusive=inclusive,
                )
                found.append((source, node))
    return found


def around(kind: FixedType, steps: list[tuple[str, Node]], *shape: int) -> np.ndarray:
    """Return inputs on, next to and far from the thresholds of the layers."""
    random = np.random.default_rng(1)
    thresholds = np.concatenate([node.thresholds.ravel() for _, node in steps if isinstance(node, Thresholds)])
    near = np.clip(thresholds, kind.min, kind.max) + kind.step * np.array([[-1], [0], [1]])
    return np.where(random.random(shape) < 0.6, random.choice(near.ravel(), shape), samples(kind, *shape))


@pytest.mark.parametrize(("kind", "result"), TYPES, ids=lambda text: text.replace("AP_", ""))
def test_everywhere(kind: str, result: str) -> None:
    parsed = FixedType.parse(kind)
    steps = layers(parsed)
    types = {name: {"result": kind} for name in SHAPES} | {node.name: {"result": result} for _, node in steps}
    hls_model = compiled(steps, types)
    assert_exact(hls_model, [around(parsed, steps, 37, *shape) for shape in SHAPES.values()])


@pytest.mark.parametrize(
    ("inclusive", "expected"),
    [
        (True, [-1, -1, 0, 0, 1, 1]),
        (False, [-1, -1, -1, 0, 0, 1]),
        ((True, False), [-1, -1, 0, 0, 0, 1]),
        ((False, True), [-1, -1, -1, 0, 1, 1]),
    ],
)
def test_a_value_on_a_threshold(inclusive: bool | tuple[bool, ...], expected: list[float]) -> None:
    node = Thresholds(name="y", thresholds=column(-0.5, 0.5), levels=np.array([-1.0, 0.0, 1.0]), inclusive=inclusive)
    hls_model = compiled([("vector", node)], {"vector": {"result": "ap_fixed<6,4>"}})
    assert hls_model.predict(np.array([[-8, -0.75, -0.5, 0.25, 0.5, 0.75]])).tolist() == [expected]


def test_thresholds_of_every_channel() -> None:
    thresholds = np.array([[-2.0, 0.0, 1.0], [-1.0, 0.1, np.inf]])
    node = Thresholds(name="y", thresholds=thresholds, levels=np.array([0.0, 1.0, 3.0]))
    hls_model = compiled([("wave", node)], {"wave": {"result": "ap_fixed<8,4>"}})
    rows = [[-2.0625, -0.0625, 0.9375], [-2.0, 0.0, 1.0], [-1.0, 0.0625, 7.0], [0.0, 0.125, -8.0]]
    assert hls_model.predict(np.array([rows])).tolist() == [[[0, 0, 0], [1, 1, 1], [3, 1, 1], [3, 3, 0]]]


def typed(node: Thresholds, **types: str) -> Thresholds:
    hls_model = graph([("wave", node)], {"wave": types})
    for step in (apply_settings, infer_types):
        step.run(hls_model)
    return node


def test_inclusive_is_one_or_one_for_each_threshold() -> None:
    node = Thresholds(name="y", thresholds=column(0, 1), levels=np.arange(3.0), inclusive=(True,))
    with pytest.raises(GraphError, match="layer 'y': 1 values of inclusive for 2 thresholds"):
        typed(node)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0, 1], FixedType(1, 1, signed=False)),
        ([-1, 1], FixedType(2, 2)),
        ([0.5, 0.25], FixedType(2, 0, signed=False)),
    ],
)
def test_the_result_holds_the_levels(levels: list[float], expected: FixedType) -> None:
    node = typed(Thresholds(name="y", thresholds=column(0), levels=np.array(levels, dtype=float)))
    assert node.typed("result") == expected


def test_the_layer_before_stays_lossless_and_the_result_is_not_widened() -> None:
    dense = Dense(name="fc", weight=np.eye(6), bias=np.zeros(6))
    steps = Thresholds(name="y", thresholds=column(0), levels=np.array([0.0, 1.0]))
    after = Dense(name="after", weight=np.eye(6), bias=np.zeros(6))
    hls_model = graph([("vector", dense), ("fc", steps), ("y", after)])
    hls_model.outputs = [after.output]
    for step in (apply_settings, infer_types):
        step.run(hls_model)
    assert dense.typed("result") == dense.typed("accum")
    assert steps.typed("result") == FixedType(1, 1, signed=False)


def test_it_means_the_number_of_thresholds_reached() -> None:
    node = Thresholds(name="y", thresholds=column(-1, 0.3), levels=np.array([5.0, 6.0, 8.0]))
    answers = reference.run_float(graph([("vector", node)]), np.array([[-1.1, -1, 0, 0.29, 0.3, 9]]))
    assert answers[0].tolist() == [[5, 6, 6, 6, 8, 8]]


def test_a_value_on_two_thresholds_that_differ_in_it() -> None:
    node = Thresholds(name="y", thresholds=column(1, 1), levels=np.array([0.0, 1.0, 2.0]), inclusive=(False, True))
    hls_model = compiled([("vector", node)], {"vector": {"result": "ap_fixed<6,4>"}})
    assert hls_model.predict(np.array([[0, 0.75, 1, 1.25, 2, -8]])).tolist() == [[0, 0, 1, 2, 2, 0]]


@pytest.mark.parametrize(
    ("thresholds", "levels", "message"),
    [
        (column(1, 0), 3, "must be ascending"),
        (column(0, np.nan), 3, "must be ascending"),
        (column(0, 1), 2, r"2 thresholds need 3 levels, not \(2,\)"),
        (np.zeros((2, 4)), 3, r"thresholds \(2, 4\) are not \[k, 3\] or \[k, 1\]"),
        (np.zeros(2), 3, r"thresholds \(2,\) are not"),
        (np.zeros((0, 1)), 1, r"thresholds \(0, 1\) are not"),
    ],
)
def test_arrays_that_do_not_fit(thresholds: np.ndarray, levels: int, message: str) -> None:
    with pytest.raises(GraphError, match=f"layer 'y': .*{message}"):
        typed(Thresholds(name="y", thresholds=thresholds, levels=np.arange(float(levels))))


def test_an_input_of_too_many_bits_says_what_to_set() -> None:
    node = Thresholds(name="y", thresholds=column(0), levels=np.array([0.0, 1.0]))
    with pytest.raises(ConfigError, match=r"'y': its input 'wave' has 64 bits, and 63 are the most.*'wave'"):
        typed(node, result="ap_fixed<64,20>")
