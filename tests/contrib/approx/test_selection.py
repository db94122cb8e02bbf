"""Predicted errors against measured ones, and the choice of multipliers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kconvert_contrib.approx import ApproxError
from kconvert_contrib.approx.families import library
from kconvert_contrib.approx.multipliers import EXACT_PRODUCTS, ApproximateMultiplier, exact_multiplier
from kconvert_contrib.approx.selection import (
    Selection,
    by_name,
    deploy_multipliers,
    error_deviation,
    select_multipliers,
    uniform,
)
from tests.conftest import golden

STRONG = ("1L2H", "1L2D", "1L1G")


def codes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def layer_codes(fan_in: int = 150, outputs: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different size, half of their elements 0, as behind a ReLU; and weights."""
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.normal(size=(4000, fan_in)), 0) * rng.exponential(30, (4000, 1))
    return codes(rows), codes(rng.normal(0, 30, (fan_in, outputs)))


def true_deviation(error_map: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> float:
    """The error of every output of every row, one output at a time."""
    sums = [
        error_map[rows.astype(int) + 128, weights[:, o].astype(int) + 128].sum(axis=1) for o in range(weights.shape[1])
    ]
    return float(np.std(sums))


# ***** the error model *****


def ratio(error_map: np.ndarray, model: str = "populations") -> float:
    """Predicted over measured."""
    rows, weights = layer_codes()
    return error_deviation(error_map, rows, weights, model=model) / true_deviation(error_map, rows, weights)


@pytest.mark.parametrize("name", STRONG)
def test_populations_predict_strong_multipliers_of_evoapproxlib(name: str) -> None:
    error_map = EXACT_PRODUCTS - np.load(golden("evoapprox") / f"mul8s_{name}.npy").astype(int)
    assert ratio(error_map) == pytest.approx(1, abs=0.1)
    assert ratio(error_map, "global") < 0.6  # what populations are for
    assert ratio(error_map, "measured") == pytest.approx(1, abs=0.1)


def test_populations_predict_the_strong_members_of_the_library() -> None:
    strong = sorted(library(), key=lambda member: member.statistics.std)[-24::3]
    ratios = {member.name: ratio(member.error_map) for member in strong}
    assert all(0.9 < found < 1.1 for found in ratios.values()), ratios


def test_near_exact_ones_are_not_underestimated() -> None:
    weak = sorted((m for m in library() if not m.exact), key=lambda member: member.statistics.std)[:4]
    ratios = {member.name: ratio(member.error_map) for member in weak}
    assert all(0.9 < found < 1.4 for found in ratios.values()), ratios


def test_a_constant_error_of_every_product_does_not_vary() -> None:
    rows, weights = layer_codes()
    for model in ("populations", "global", "measured"):
        assert error_deviation(np.full((256, 256), 7), rows, weights, model=model) == pytest.approx(0, abs=1e-3)


def test_groups_multiply_with_weights_of_their_own() -> None:
    rng = np.random.default_rng(1)
    rows = np.stack([codes(rng.normal(0, 10, (500, 9))), codes(rng.normal(0, 60, (500, 9)))])
    weights = codes(rng.normal(0, 40, (2, 9, 3)))
    error_map = library()[-1].error_map
    sums = [
        error_map[r.astype(int)[:, :, None] + 128, w.astype(int)[None] + 128].sum(axis=1)
        for r, w in zip(rows, weights, strict=True)
    ]
    found = error_deviation(error_map, rows, weights, model="measured", fields=4000)
    assert found == pytest.approx(float(np.std(sums)), rel=0.03)


@pytest.mark.parametrize(
    ("rows", "weights", "options", "message"),
    [
        ((5, 4), (3, 2), {}, "do not fit"),
        ((2, 5, 4), (3, 4, 2), {}, "do not fit"),
        ((0, 4), (4, 2), {}, "no inputs or no weights"),
        ((5, 4), (4, 2), {"model": "magic"}, "no error model 'magic'"),
    ],
)
def test_what_does_not_fit_is_refused(
    rows: tuple[int, ...], weights: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApproxError, match=message):
        error_deviation(np.zeros((256, 256)), np.zeros(rows, np.int8), np.zeros(weights, np.int8), **options)
    with pytest.raises(ApproxError, match=r"shape \(256, 256\)"):
        error_deviation(np.zeros((2, 2)), np.zeros((5, 4), np.int8), np.zeros((4, 2), np.int8))


# ***** the choice *****


@dataclass
class Operands:
    """What a layer multiplies."""

    name: str
    inputs: np.ndarray
    weights: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        return self.inputs.astype(int) @ self.weights.astype(int)


@dataclass
class Net:
    """What a selection asks of a network."""

    sigma: dict[str, float] = field(default_factory=lambda: {"small": 0.06, "large": -0.3, "none": 0.0})
    multipliers: dict[str, ApproximateMultiplier] = field(default_factory=dict)
    opcount = {"small": 1000, "large": 8000, "none": 1000}  # noqa: RUF012

    def layer_operands(self, data: Any, batches: int) -> Iterator[Operands]:
        assert (data, batches) == ("data", 1)
        for seed, name in enumerate(self.opcount):
            yield Operands(name, *layer_codes(seed=seed))

    def assign(self, multipliers: Any) -> None:
        self.multipliers = multipliers


def shifted(k: int, metric: float) -> ApproximateMultiplier:
    return ApproximateMultiplier.from_function(f"drop{k}", metric, lambda x, y: (x >> k << k) * y)


LIBRARY = (shifted(6, 0.1), shifted(4, 0.3), exact_multiplier(1.0), shifted(2, 0.5))


@pytest.fixture(scope="module")
def selection() -> Selection:
    return select_multipliers(Net(), "data", LIBRARY)  # type: ignore[arg-type]


def test_every_layer_gets_the_cheapest_that_it_bears(selection: Selection) -> None:
    for operands in Net().layer_operands("data", 1):
        found = selection[operands.name]
        tolerated = abs(Net().sigma[operands.name]) * operands.outputs.std()
        assert found.tolerated == pytest.approx(tolerated)
        predicted = {
            m.name: error_deviation(m.error_map, operands.inputs, operands.weights, model="measured") for m in LIBRARY
        }
        fit = [m for m in LIBRARY if predicted[m.name] <= tolerated]
        assert found.multiplier == min(fit, key=lambda m: m.performance_metric).name
        assert found.predicted == pytest.approx(predicted[found.multiplier])
    assert selection["none"].multiplier == "exact"
    assert len({found.multiplier for found in selection.layers}) == 3


def test_figures_of_a_selection(selection: Selection) -> None:
    assert [found.name for found in selection.layers] == ["small", "large", "none"]
    assert selection.opcount == 10_000
    assert selection.metric_max == 1.0
    assert all(found.metric_max == 1.0 for found in selection.layers)
    assert selection.total == selection.relative_energy_consumption
    assert [found.relative_opcount for found in selection.layers] == [0.1, 0.8, 0.1]
    expected = sum(found.relative_opcount * found.metric for found in selection.layers)
    assert selection.relative_energy_consumption == pytest.approx(expected)
    plain = json.loads(json.dumps(selection.to_dict()))
    assert plain["layers"][1]["multiplier"] == selection["large"].multiplier
    assert plain["relative_energy_consumption"] == pytest.approx(expected)
    lines = str(selection).splitlines()
    assert len(lines) == 6
    assert "large" in lines[3]
    assert "<table" in selection._repr_html_()


def test_the_published_selection_adds_up() -> None:
    """The relative energy of the published LeNet-5 follows from its multipliers and multiplications."""
    count = {"conv1": 117_600, "conv2": 240_000, "linear1": 48_000, "linear2": 10_080, "linear3": 840}
    power = dict(zip(count, (0.301, 0.126, 0.2, 0.2, 0.391), strict=True))
    assert sum(count[k] * power[k] for k in count) / (416_520 * 0.425) == pytest.approx(0.43826, abs=1e-5)


def test_plot(selection: Selection, tmp_path: Path) -> None:
    figure = selection.plot(tmp_path / "energy.png")
    assert (tmp_path / "energy.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["small", "large", "none"]


def test_deployment(selection: Selection) -> None:
    net = Net()
    deploy_multipliers(net, selection)  # type: ignore[arg-type]
    assert {name: m.name for name, m in net.multipliers.items()} == {
        found.name: found.multiplier for found in selection.layers
    }
    net.opcount = {"other": 1}
    with pytest.raises(ApproxError, match="for the layers"):
        deploy_multipliers(net, selection)  # type: ignore[arg-type]


def test_uniform_assignment_by_name() -> None:
    net = Net()
    assert uniform(net, "drop4", LIBRARY) is LIBRARY[1]  # type: ignore[arg-type]
    assert net.multipliers is LIBRARY[1]
    own = library()[3]
    assert by_name(own.name).name == own.name
    with pytest.raises(ApproxError, match=r"no multiplier 'drop_4'.*'drop4'"):
        uniform(net, "drop_4", LIBRARY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (LIBRARY[:2], "none of the 2 multipliers is exact"),
        ((), "none of the 0 multipliers is exact"),
        ((*LIBRARY, shifted(6, 0.2)), "two multipliers of the library are called 'drop6'"),
        ((exact_multiplier(0.0),), "metric above 0"),
    ],
)
def test_a_library_that_cannot_serve(members: Any, message: str) -> None:
    with pytest.raises(ApproxError, match=message):
        select_multipliers(Net(), "data", members)  # type: ignore[arg-type]


def test_a_network_without_learned_tolerances() -> None:
    with pytest.raises(ApproxError, match="no layer has a learned tolerance"):
        select_multipliers(Net(sigma=dict.fromkeys(Net.opcount, 0.0)), "data", LIBRARY)  # type: ignore[arg-type]
