"""ROC curves and what is read from them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from kconvert.errors import InputError, MissingPackageError
from kconvert.profiling import roc, roc_table
from tests.profiling.test_plots import drawn, legend


def scores(classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, classes, count)
    return truth, np.eye(classes)[truth] + rng.normal(size=(count, classes))


def curves(figure: Figure) -> list[Any]:
    return [line for line in figure.axes[0].lines if len(line.get_xdata())]


def test_roc() -> None:
    from sklearn.metrics import auc, roc_auc_score

    truth, good = scores(3)
    bad = good + np.random.default_rng(6).normal(size=good.shape)
    figure = roc(truth, {"keras": good, "hls $8$": bad}, labels=["g", "q", "W_$"])
    drawn(figure)
    lines = curves(figure)
    assert len(lines) == 6
    assert [line.get_linestyle() for line in lines] == ["-"] * 3 + ["--"] * 3
    assert [line.get_color() for line in lines[:3]] == [line.get_color() for line in lines[3:]]
    assert figure.axes[0].get_yscale() == "log"
    areas = [[100 * roc_auc_score(truth == k, s[:, k]) for s in (good, bad)] for k in range(3)]
    names = ("g", "q", "W_$")
    assert legend(figure) == [f"{n}: {a:.2f} / {b:.2f}" for n, (a, b) in zip(names, areas, strict=True)]
    signal, background = lines[0].get_data()
    assert np.all(np.diff(signal) >= 0)
    assert 100 * auc(background, signal) == pytest.approx(areas[0][0])


def test_roc_table_reads_the_curve() -> None:
    """Two of four background samples score higher than the median signal sample."""
    score = np.array([0.1, 0.2, 0.7, 0.8, 0.3, 0.5, 0.75, 0.9])
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    (row,) = roc_table(truth, {"a": score}, efficiencies=(0.25, 0.5, 0.75))
    assert row == {
        "model": "a",
        "class": "1",
        "auc": pytest.approx(11 / 16),
        "rejection@0.25": np.inf,
        "rejection@0.5": pytest.approx(4),
        "rejection@0.75": pytest.approx(2),
    }


def test_roc_table_has_a_row_for_each_model_and_class() -> None:
    truth, good = scores(3)
    rows = roc_table(np.where(truth == 2, 0, truth), {"x": good, "y": -good}, ["a", "b", "c"], (0.5,))
    assert [(r["model"], r["class"]) for r in rows] == [(m, c) for m in "xy" for c in "abc"]
    assert rows[2]["auc"] is rows[2]["rejection@0.5"] is None
    assert rows[1]["auc"] + rows[4]["auc"] == pytest.approx(1)


@pytest.mark.parametrize("log", [True, False])
def test_residuals_are_against_the_first(log: bool) -> None:
    truth, good = scores(3)
    same = roc(truth, {"a": good, "b": good}, log=log)
    drawn(same)
    _, below = same.axes
    assert below.get_xlabel() == "signal efficiency"
    for line in below.lines:
        if line.get_linestyle() == "--":
            np.testing.assert_allclose(line.get_ydata(), 1.0 if log else 0.0, atol=1e-12)
    worse = roc(truth, {"a": good, "b": good + np.random.default_rng(1).normal(size=good.shape) * 3}, log=log).axes[1]
    curves_below = [line.get_ydata() for line in worse.lines if line.get_linestyle() == "--"]
    assert len(curves_below) == 3
    assert all(np.median(y) > (1.0 if log else 0.0) for y in curves_below)


def test_one_model_has_no_residuals() -> None:
    truth, score = scores(3)
    assert len(roc(truth, {"a": score}).axes) == 1


def test_rejections_stand_beside_the_curves() -> None:
    truth, score = scores(3)
    figure = roc(truth, {"$a$": score}, efficiencies=(0.3,))
    drawn(figure)
    legends = [child for child in figure.axes[0].get_children() if isinstance(child, Legend)]
    titles = {found.get_title().get_text(): found for found in legends}
    first = titles["Rejection at 30 % signal"].get_texts()[0].get_text()
    assert first == f"0: {roc_table(truth, {'a': score}, efficiencies=(0.3,))[0]['rejection@0.3']:.3g}"
    linear = roc(truth, {"a": score}, log=False)
    assert not any(
        "Rejection" in child.get_title().get_text()
        for child in linear.axes[0].get_children()
        if isinstance(child, Legend)
    )


def test_roc_takes_one_hot_and_linear_axes() -> None:
    truth, score = scores(4)
    one, two = roc(np.eye(4)[truth], {"a": score}, log=False), roc(truth[:, None], {"a": score}, log=False)
    assert one.axes[0].get_yscale() == "linear"
    assert legend(one) == legend(two)


def test_roc_of_a_binary_classifier() -> None:
    truth, score = scores(2)
    for given in (score[:, 1], score[:, 1:]):
        figure = roc(truth, {"a": given, "b": -given})
        assert len(curves(figure)) == 2
        (text,) = legend(figure)
        first, second = (float(area) for area in text.removeprefix("1: ").split(" / "))
        assert first + second == pytest.approx(100, abs=0.02)


def test_roc_of_many_classes() -> None:
    truth, score = scores(25)
    figure = roc(truth, {"a": score})
    drawn(figure)
    assert len({str(line.get_color()) for line in curves(figure)}) == 25


def test_roc_without_samples_of_a_class() -> None:
    truth, score = scores(3)
    figure = roc(np.where(truth == 2, 0, truth), {"a": score})
    assert len(curves(figure)) == 2
    assert legend(figure)[2] == "2: none"


@pytest.mark.parametrize(
    ("truth", "predictions", "labels", "message"),
    [
        ([0, 1], {}, None, "empty"),
        ([0, 1, 1], {"a": np.zeros((2, 3))}, None, r"y_true has shape \(3,\), expected \(2,\)"),
        ([0, 3], {"a": np.zeros((2, 3))}, None, "other than 0 to 2"),
        ([0, 1], {"a": np.zeros((2, 3)), "b": np.zeros((2, 2))}, None, r"'b'\] has shape \(2, 2\)"),
        ([0, 1], {"a": np.full((2, 3), np.nan)}, None, "6 of 6 scores are NaN"),
        ([0, 1], {"a": np.zeros((2, 3, 4))}, None, "expected scores"),
        ([0, 1], {"a": np.array([["x"], ["y"]])}, None, "expected scores"),
        ([0, 1], {"a": np.zeros((2, 3))}, ["x"], "1 labels for 3 classes"),
    ],
)
def test_roc_of_bad_input(truth: Any, predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        roc(truth, predictions, labels)


@pytest.mark.parametrize(
    ("module", "package"), [("matplotlib.figure", "matplotlib"), ("sklearn.metrics", "scikit-learn")]
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    truth, score = scores(3)
    with pytest.raises(MissingPackageError, match=f"pip install {package}"):
        roc(truth, {"a": score})


def test_an_efficiency_is_between_0_and_1() -> None:
    truth, score = scores(3)
    with pytest.raises(InputError, match=r"efficiencies= holds 80"):
        roc(truth, {"a": score}, efficiencies=(80,))
