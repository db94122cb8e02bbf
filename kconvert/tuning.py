"""Finding, layer by layer, the fewest bits that keep a quality on given data.

The float model is stood in for by the same network with types so wide that nothing is lost (:func:`precise`), so that
neither Keras nor its file is needed. Integer bits come from the ranges seen, fraction bits from a search.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters import build_model, convert_from_keras_model, read_model
from kconvert.converters.spec import ModelSpec
from kconvert.errors import ConfigError, InputError, PrecisionWarning, did_you_mean
from kconvert.inputs import input_arrays
from kconvert.layers import Input, Node
from kconvert.model import HLSModel
from kconvert.optimizers import split_activations
from kconvert.progress import steps
from kconvert.types import FixedType, Overflow, Rounding

if TYPE_CHECKING:
    from kconvert.model import Arrays

Array = npt.NDArray[Any]
Row = dict[str, Any]

METRICS = ("agreement", "mae", "accuracy", "auc")
WIDEST = (18, 26, 32)
"""Widths the search may start from: the first that meets the tolerance."""
NARROWEST = 2
WIDE = "ap_fixed<38,16,AP_RND,AP_SAT>"
"""Type of what is not rounded; with the weights beside it, sums of 2^16 products keep its fraction within 64 bits."""


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` found.

    Attributes:
        config: The settings dictionary with the types it chose.
        table: A row for each type: ``layer``, ``role``, ``values`` (how many numbers it holds, of one sample for a
            result), ``before`` and ``after`` (types as text), ``bits_before``, ``bits_after``.
        metric: What was measured.
        reference: The metric of the network without rounding.
        before: The metric with the settings given.
        score: The metric with the types chosen, of the conversion as it is returned.
        compiles: How many designs were compiled.
        evaluations: How many settings were tried.
        complete: False if the budget ended the search early; what was found holds all the same.
    """

    config: dict[str, Any]
    table: list[Row]
    metric: str
    reference: float
    before: float
    score: float
    compiles: int
    evaluations: int
    complete: bool

    @property
    def bits_before(self) -> int:
        """Bits of all weights and results that were tuned, as they were."""
        return sum(row["values"] * row["bits_before"] for row in self.table)

    @property
    def bits_after(self) -> int:
        """The same with the types chosen."""
        return sum(row["values"] * row["bits_after"] for row in self.table)


def tune(
    model: Any,
    X: Arrays,
    y: Any = None,
    *,
    config: Mapping[str, Any] | None = None,
    metric: str = "agreement",
    tolerance: float = 0.01,
    budget: int = 60,
) -> Tuning:
    """Choose the types of weights, biases and results so that a metric loses no more than `tolerance`.

    First one width for all is searched, then that of every type on its own, the one that holds most numbers first.
    Types that the model's own quantizers chose stay, as do those of accumulators and tables. The search is the same
    in every run. Check what it finds on samples it has not seen.

    Args:
        model: As for :func:`kconvert.config_from_keras_model`.
        X: Samples as for :meth:`HLSModel.predict`; thousands are better than tens.
        y: The truth: class numbers [n] or one-hot [n, classes]; for ``"mae"`` the values. Needed for ``"accuracy"``
            and ``"auc"``; without it the network is compared with itself without rounding.
        config: Settings to start from.
        metric: ``"agreement"``: share of samples with the same decision; ``"mae"``: mean absolute error;
            ``"accuracy"``; ``"auc"``: mean area under the ROC curves.
        tolerance: How much worse than without rounding the metric may be.
        budget: How many designs may be compiled, about a second each. Weights need none.

    Raises:
        InputError: the metric is unknown or lacks its truth, or not even the widest types meet the tolerance.
        KConvertError: as a conversion.
    """
    spec = read_model(model)
    judge = _Judge.of(metric, y)
    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance={tolerance!r} is no number from 0 on")
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 4:
        raise InputError(f"budget={budget!r}: at least 4 designs have to be compiled")
    with _quiet():
        wide = precise(spec)
        judge = judge.against(wide.predict(X))
        arrays = input_arrays(wide.inputs, X)
        search = _Search(spec, dict(config or {}), X, arrays, judge, tolerance, budget)
        search.look(wide.trace(X))
        return search.run()


def precise(spec: ModelSpec) -> HLSModel:
    """Return the compiled network with types so wide that rounding them hardly matters, as a stand-in for Keras.

    Quantizers of the model quantise as ever. No layer is folded into another, so that :meth:`HLSModel.trace` has all.
    """
    graph = build_model(spec)
    graph.run((split_activations,), final=False)
    names: dict[str, Any] = {}
    for node in graph:
        types = {"result": WIDE} if "result" in node.roles and "result" not in node.preset else {}
        names[node.layer] = {"Precision": types}
        if "table_size" in node.tunables:
            names[node.layer] = {"Precision": {**types, "table": "ap_fixed<26,4,AP_RND,AP_SAT>"}, "table_size": 1 << 20}
    weights = dict.fromkeys(("weight", "recurrent_weight"), "ap_fixed<32,10,AP_RND,AP_SAT>")
    config = {
        "Model": {"Precision": {"default": WIDE, **weights}},
        "LayerName": names,
        "SkipOptimizers": ["fold_batch_normalization", "join_scales", "fold_scale_into_thresholds"],
    }
    model = convert_from_keras_model(spec, config)
    model.compile()
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # narrow types are tried on purpose
        yield


# ***** what is measured *****


@dataclass(frozen=True)
class _Judge:
    metric: str
    truth: list[Array] | None
    reference: float = math.nan

    @classmethod
    def of(cls, metric: str, y: Any) -> _Judge:
        if metric not in METRICS:
            raise InputError(
                f"unknown metric {metric!r}; choose from {', '.join(METRICS)}{did_you_mean(metric, METRICS)}"
            )
        if y is None and metric in ("accuracy", "auc"):
            raise InputError(f"the metric {metric!r} needs the truth: give y")
        if y is not None and metric == "agreement":
            raise InputError("the metric 'agreement' compares with the network itself: leave y out, or use 'accuracy'")
        truth = None if y is None else np.asarray(y)
        if truth is not None and (truth.dtype.kind not in "fiub" or not np.all(np.isfinite(truth))):
            raise InputError("y holds something else than finite numbers")
        return cls(metric, None if truth is None else [truth])

    def against(self, outputs: Array | list[Array]) -> _Judge:
        """Return the judge that knows what the network answers without rounding."""
        answers = outputs if isinstance(outputs, list) else [outputs]
        truth = answers if self.truth is None else self.truth
        if len(truth) != len(answers):
            raise InputError(f"the model has {len(answers)} outputs; {self.metric!r} with y is for one")
        if len(truth[0]) != len(answers[0]):
            raise InputError(f"y has {len(truth[0])} samples, X {len(answers[0])}")
        if not len(truth[0]):
            raise InputError("X has no samples")
        judge = replace(self, truth=truth)
        return replace(judge, reference=judge.score(outputs))

    def score(self, outputs: Array | list[Array]) -> float:
        """Return the metric of answers."""
        answers = outputs if isinstance(outputs, list) else [outputs]
        measure = _MEASURES[self.metric]
        return float(np.mean([measure(a, t) for a, t in zip(answers, self.truth or [], strict=True)]))

    def loss(self, score: float) -> float:
        """Return how much worse than without rounding a score is."""
        return score - self.reference if self.metric == "mae" else self.reference - score


def _decisions(answers: Array) -> Array:
    """Return the class of every answer: the largest of the last axis, or whether the one number is above a half."""
    decided: Array = np.argmax(answers, axis=-1) if answers.shape[-1] > 1 else answers[..., 0] > 0.5
    return decided


def _classes(truth: Array, answers: Array) -> Array:
    """Return class numbers in the form of decisions on the answers, from those or one-hot."""
    if truth.shape == answers.shape:
        return _decisions(truth)
    flat = truth.reshape(len(truth), -1)
    if flat.shape != (len(truth), 1) or answers.ndim != 2:
        raise InputError(f"y has shape {truth.shape}; answers of shape {answers.shape} need class numbers or one-hot")
    classes = flat[:, 0]
    count = max(answers.shape[-1], 2)
    others = classes[~np.isin(classes, range(count))]
    if others.size:
        raise InputError(f"y holds {others[0]:g}, but the classes have the numbers 0 to {count - 1}")
    return classes


def _agreement(answers: Array, truth: Array) -> float:
    return float(np.mean(_decisions(answers) == _decisions(truth)))


def _accuracy(answers: Array, truth: Array) -> float:
    return float(np.mean(_decisions(answers) == _classes(truth, answers)))


def _mae(answers: Array, truth: Array) -> float:
    if truth.size != answers.size:
        raise InputError(f"y has shape {truth.shape}, the answers {answers.shape}")
    return float(np.mean(np.abs(answers - truth.reshape(answers.shape))))


def _auc(answers: Array, truth: Array) -> float:
    classes = _classes(truth, answers)
    columns = answers.shape[-1]
    targets = range(columns) if columns > 1 else [1]
    areas = [_area(answers[:, c if columns > 1 else 0], classes == c) for c in targets]
    known = [area for area in areas if area is not None]
    if not known:
        raise InputError("y holds one class only: there is no ROC curve")
    return float(np.mean(known))


def _area(scores: Array, positive: Array) -> float | None:
    """Return the area under the ROC curve, the chance that a positive scores above a negative (Mann and Whitney)."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # those of equals are their mean
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


_MEASURES: Mapping[str, Callable[[Array, Array], float]] = {
    "agreement": _agreement,
    "mae": _mae,
    "accuracy": _accuracy,
    "auc": _auc,
}


# ***** the search *****


@dataclass(frozen=True)
class _Knob:
    """A type to choose: that of a role in the settings of a layer."""

    layer: str
    role: str
    nodes: tuple[str, ...]
    count: int
    integer: int
    signed: bool
    before: FixedType

    @property
    def is_result(self) -> bool:
        return self.role == "result"

    def type(self, width: int) -> FixedType:
        return FixedType(width, self.integer, self.signed, Rounding.RND, Overflow.SAT)


Widths = tuple[int, ...]


class _BudgetError(Exception):
    """No design may be compiled any more."""


@dataclass
class _Search:
    spec: ModelSpec
    config: dict[str, Any]
    samples: Arrays
    arrays: list[Array]
    judge: _Judge
    tolerance: float
    budget: int
    knobs: list[_Knob] = field(default_factory=list)
    widest: int = 0
    compiles: int = 0
    evaluations: int = 0
    scores: dict[Widths, float] = field(default_factory=dict)
    designs: dict[Widths, tuple[HLSModel, dict[tuple[str, str], dict[str, Array]]]] = field(default_factory=dict)
    complete: bool = True

    # ***** what there is to choose *****

    def look(self, traced: Mapping[str, Array]) -> None:
        """Find the types to choose, and their integer bits."""
        given = convert_from_keras_model(self.spec, self.config)
        found: dict[tuple[str, str], list[tuple[Node, Array]]] = {}
        for node in given:
            for role in node.roles:
                if role in node.preset or role == "accum":
                    continue
                if arrays := _arrays(node, role):
                    values = np.concatenate([np.ravel(a) for a in arrays.values()])
                    found.setdefault((node.layer, role), []).append((node, values))
                elif role == "result" and (layer := self._result_layer(node)) is not None:
                    found.setdefault((layer, role), []).append((node, self._seen(node, traced)))
        for (layer, role), users in found.items():
            values = np.concatenate([np.ravel(v) for _, v in users])
            nodes = [node for node, _ in users]
            signed = role != "result" or bool(values.min(initial=0) < 0) or any(map(_may_be_negative, nodes))
            count = sum(n.output.size for n in nodes) if role == "result" else users[0][1].size
            names, before = tuple(n.name for n in nodes), nodes[0].typed(role)
            self.knobs.append(_Knob(layer, role, names, count, integer_bits(values, signed), signed, before))

    def _seen(self, node: Node, traced: Mapping[str, Array]) -> Array:
        if isinstance(node, Input):
            given = dict(zip([ref.layer for ref in self.spec.inputs], self.arrays, strict=True))
            return np.asarray(given[node.layer])
        return traced[next(name for name in node.output.names if name in traced)]

    @staticmethod
    def _result_layer(node: Node) -> str | None:
        """Return the layer whose settings hold the type of a node's output, if rounding it saves bits."""
        if not node.output.names or node.default_type("result", node.output.known_type()) is None:
            return None
        own = node.output.names[0]
        return node.layer if node.name in node.output.names else own.partition(":")[0]

    # ***** trying *****

    def settings(self, widths: Widths) -> dict[str, Any]:
        """Return the settings with types of these widths."""
        chosen: dict[str, dict[str, str]] = {}
        for knob, width in zip(self.knobs, widths, strict=True):
            chosen.setdefault(knob.layer, {})[knob.role] = str(knob.type(width))
        return self._with(chosen)

    def _with(self, types: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        config = copy.deepcopy(self.config)
        names = config["LayerName"] = dict(config.get("LayerName") or {})
        for layer, roles in types.items():
            entry = names[layer] = dict(names.get(layer) or {})
            own = entry.get("Precision") or {}
            entry["Precision"] = {**(own if isinstance(own, Mapping) else {"default": own}), **roles}
        return config

    def passes(self, widths: Widths) -> bool:
        """Whether types of these widths lose no more than allowed."""
        if widths not in self.scores:
            self.scores[widths] = self.judge.score(self._answers(widths))
            self.evaluations += 1
        return self.judge.loss(self.scores[widths]) <= self.tolerance

    def _answers(self, widths: Widths) -> Any:
        """Return what the hardware answers. Rounded weights are loaded into a design whose own types for them are wide:
        their products and sums are exact either way, so the answers are those of narrow types, and nothing is compiled.
        """
        of_design = tuple(w if k.is_result else self.widest for k, w in zip(self.knobs, widths, strict=True))
        if of_design not in self.designs:
            model = self._compiled(self.settings(of_design))
            kept = {(node.name, role): _arrays(node, role) for node in model for role in node.roles}
            self.designs[of_design] = (model, kept)
        model, kept = self.designs[of_design]
        for knob, width in zip(self.knobs, widths, strict=True):
            for name in () if knob.is_result else knob.nodes:
                for attribute, values in kept[name, knob.role].items():
                    setattr(model[name], attribute, knob.type(width).quantize(values))
        model.compile()  # of the cache: loads the weights
        return model.predict(self.samples)

    def _compiled(self, config: Mapping[str, Any]) -> HLSModel:
        if self.compiles >= self.budget:
            raise _BudgetError
        self.compiles += 1
        model = convert_from_keras_model(self.spec, config)
        model.compile()
        return model

    # ***** searching *****

    def run(self) -> Tuning:
        before = self._compiled(self.config)
        score_before = self.judge.score(before.predict(self.samples))
        self.budget -= 1  # one more for the conversion that is returned
        widths = self._narrowed(self._start(), range(len(self.knobs)))
        for index in steps(sorted(range(len(self.knobs)), key=lambda i: -self.knobs[i].count), "tuning"):
            widths = self._narrowed(widths, [index])
        self.budget += 1
        score = self.judge.score(self._compiled(self.settings(widths)).predict(self.samples))
        return Tuning(
            self.settings(widths),
            [self._row(knob, width) for knob, width in zip(self.knobs, widths, strict=True)],
            self.judge.metric,
            self.judge.reference,
            score_before,
            score,
            self.compiles,
            self.evaluations,
            self.complete,
        )

    def _start(self) -> Widths:
        for width in WIDEST:
            self.widest, widths = width, (width,) * len(self.knobs)
            if self.passes(widths):
                return widths
        raise InputError(
            f"not even {max(WIDEST)} bits everywhere keep {self.judge.metric} within {self.tolerance:g} of "
            f"{self.judge.reference:.6g} (it is {self.scores[widths]:.6g}): allow more tolerance"
        )

    def _narrowed(self, widths: Widths, indices: Iterable[int]) -> Widths:
        """Return `widths` with the smallest common width for some knobs that passes, by bisection.

        Where that takes more designs than may be compiled, it ends at the smallest found so far.
        """
        chosen = set(indices)

        def with_width(width: int) -> Widths:
            return tuple(min(width, w) if i in chosen else w for i, w in enumerate(widths))

        fails, works = NARROWEST - 1, max((w for i, w in enumerate(widths) if i in chosen), default=NARROWEST)
        while works - fails > 1:
            middle = (works + fails) // 2
            try:
                passes = self.passes(with_width(middle))
            except _BudgetError:
                self.complete = False
                break
            works, fails = (middle, fails) if passes else (works, middle)
        return with_width(works)

    @staticmethod
    def _row(knob: _Knob, width: int) -> Row:
        after = knob.type(width)
        return {
            "layer": knob.layer,
            "role": knob.role,
            "values": knob.count,
            "before": str(knob.before),
            "after": str(after),
            "bits_before": knob.before.width,
            "bits_after": after.width,
        }


def _arrays(node: Node, role: str) -> dict[str, Array]:
    """Return the trained arrays that have the type of a role, by the names of their fields."""
    fields = [role, "recurrent_bias"] if role == "bias" else [role]
    found = {name: getattr(node, name, None) for name in fields}
    return {name: values for name, values in found.items() if isinstance(values, np.ndarray)}


def _may_be_negative(node: Node) -> bool:
    """Whether the results of a layer could be negative for other samples."""
    chosen, node.result_type = node.result_type, None
    try:
        node.infer_types(chosen or node.in_type())
        return node.typed("result").signed
    except ConfigError:  # a lossless result would be too wide
        return True
    finally:
        node.result_type = chosen


def integer_bits(values: Array, signed: bool) -> int:
    """Return the integer bits, the sign among them, of the smallest range that holds `values`.

    Args:
        values: Numbers.
        signed: Whether the type has a sign.
    """
    lowest, highest = float(np.min(values, initial=0)), float(np.max(values, initial=0))
    # the range of a signed type reaches one step further down than up
    largest = max(highest, -lowest * (1 - 2.0**-8))
    return (math.floor(math.log2(largest)) + 1 if largest else 0) + signed
