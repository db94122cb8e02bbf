"""The report of a model as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert import drawing, progress
from kconvert.errors import InputError, PrecisionWarning, ToolError, WriteError
from kconvert.inputs import input_arrays
from kconvert.model import HLSModel
from kconvert.profiling import checking, classifiers, costs, numbers, plots
from kconvert.profiling.keras_outputs import keras_outputs, require_live
from kconvert.report import COLUMNS, parse_reports
from kconvert.tables import cell, printable

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

    from kconvert.model import Arrays

Array = npt.NDArray[Any]
Rows = list[tuple[Any, ...]]

SHOWN_SAMPLES = 2000
"""Most samples that the figures of layers and the checks look at; the answers are compared on all."""
DPI = 110


@dataclass(frozen=True)
class Answers:
    """One output of the model as every implementation gives it.

    Attributes:
        name: Of the output.
        by: Implementation -> array [n, ...]; the first is the reference.
        truth: What is right, or None where it is not known.
    """

    name: str
    by: Mapping[str, Array]
    truth: Array | None

    @property
    def reference(self) -> Array:
        """What the others are compared with."""
        return next(iter(self.by.values()))

    @property
    def classes(self) -> int:
        """Number of classes; 0 where the truth does not say that the output is a classifier's."""
        scores, truth = self.reference, self.truth
        if truth is None or scores.ndim != 2:
            return 0
        width = scores.shape[1]
        if truth.shape == scores.shape and width > 1:
            return width if np.isin(truth, (0, 1)).all() and (truth.sum(axis=1) == 1).all() else 0
        whole = truth.size == len(scores) and np.array_equal(truth, np.round(truth))
        return width if whole and truth.min() >= 0 and truth.max() < max(width, 2) else 0

    @property
    def labels(self) -> Array:
        """Class numbers [n] of a classifier's truth."""
        if self.truth is None:
            raise InputError("y= is not given")
        return (
            self.truth.argmax(axis=1)
            if self.truth.shape == self.reference.shape and self.classes > 1
            else (self.truth.reshape(-1).astype(int))
        )


def write_page(
    hls_model: HLSModel,
    X: Arrays,
    y: Any = None,
    path: str | Path = "report.html",
    *,
    others: Mapping[str, Any] | None = None,
    keras_model: Any = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write the report; see :meth:`HLSModel.report`."""
    keras_model = hls_model.keras_model if keras_model is None else keras_model
    if keras_model is not None:
        require_live(keras_model)
    arrays = input_arrays(hls_model.inputs, X)
    if not len(arrays[0]):
        raise InputError("X holds no samples: there is nothing to report")
    target = Path(path)
    with warnings.catch_warnings(), progress.working("writing the report", 7) as advance:
        warnings.simplefilter("ignore", PrecisionWarning)  # what they say stands in the page
        numbers.ready(hls_model)
        answers = _answers(hls_model, keras_model, arrays, y, others or {})
        advance(1)
        shown = [a[:SHOWN_SAMPLES] for a in arrays]
        checks = checking.checks(hls_model, shown)
        advance(1)
        values = {
            **_about(hls_model, arrays, answers, checks),
            "differences": _differences(hls_model, keras_model, shown) if keras_model is not None else None,
        }
        advance(2)
        values["ranges"] = _png(plots.numerical(keras_model, hls_model, shown))
        advance(1)
        values["rocs"] = [_roc(a, labels) for a in answers if a.classes]
        advance(1)
        text = _render(values)
        advance(1)
    _write(target, text)
    return target


# ***** what the page shows *****


def _about(
    hls_model: HLSModel, arrays: Sequence[Array], answers: Sequence[Answers], checks: checking.Checks
) -> dict[str, Any]:
    """Return all but the figures of layers."""
    from kconvert import __version__

    settings, costs_found = hls_model.settings, costs.estimate(hls_model)
    spec = hls_model.spec
    return {
        "title": f"{settings.project_name}: {printable(spec.name)}",
        "subtitle": f"{settings.backend}, {settings.part}, {settings.clock_period:g} ns",
        "version": __version__,
        "samples": f"{len(arrays[0]):,}",
        "cards": _cards(hls_model, answers, checks, costs_found.total),
        "comparison": _comparison(answers),
        "after": _markup(drawing.plot(hls_model)),
        "before": _markup(drawing.plot(hls_model, when="before")),
        "checks": _checks(checks, min(len(arrays[0]), SHOWN_SAMPLES)),
        "damaged": len(checks.damaged),
        "hardware": _hardware(hls_model),
        "estimate": {"titles": costs.TITLES, "rows": [astuple(cost) for cost in (*costs_found, costs_found.total)]},
        "project": [(name, cell(getattr(settings, name))) for name in settings.__dataclass_fields__],
        "config": _yaml(hls_model.raw_config),
        "layers": str(hls_model),
    }


def _answers(
    hls_model: HLSModel, keras_model: Any, arrays: Sequence[Array], y: Any, others: Mapping[str, Any]
) -> list[Answers]:
    traced = hls_model.traced()
    names = [next((n for n in value.names if n in traced), value.names[0]) for value in hls_model.outputs]
    predicted = hls_model.predict(list(arrays))
    given: dict[str, Any] = {}
    if keras_model is not None:
        keras = keras_outputs(keras_model, list(arrays), names)
        if keras.keys() >= set(names):  # an output that is an input itself is no layer of Keras
            given["Keras"] = [keras[name] for name in names]
    given["hls"] = predicted
    given |= dict(others)
    by = {key: _per_output(names, value, f"others[{key!r}]") for key, value in given.items()}
    truths = [None] * len(names) if y is None else _per_output(names, y, "y")
    for key, found in by.items():
        for name, array, own in zip(names, found, by["hls"], strict=True):
            if array.shape != own.shape:
                raise InputError(f"others[{key!r}]: output {name!r} has shape {array.shape}, the model's {own.shape}")
    for name, truth in zip(names, truths, strict=True):
        if truth is not None and len(truth) != len(arrays[0]):
            raise InputError(f"y holds {len(truth)} answers for output {name!r} and X {len(arrays[0])} samples")
    return [Answers(name, {key: found[i] for key, found in by.items()}, truths[i]) for i, name in enumerate(names)]


def _per_output(names: Sequence[str], given: Any, what: str) -> list[Array]:
    """Return one array for each output of the model."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise InputError(f"{what}: expected a dict with the outputs {list(names)}, got {sorted(map(str, given))}")
        given = [given[name] for name in names]
    elif len(names) == 1 and not (isinstance(given, list | tuple) and len(given) == 1 and np.ndim(given[0]) > 0):
        given = [given]
    if len(given) != len(names):
        raise InputError(f"{what}: the model has {len(names)} outputs {list(names)}: give a list of as many arrays")
    return [np.asarray(array) for array in given]


def _comparison(answers: Sequence[Answers]) -> dict[str, Any]:
    reference = next(iter(answers[0].by)) if answers else ""
    several, known = len(answers) > 1, any(a.truth is not None for a in answers)
    titles = ["output"] * several + ["answers of", "largest difference", "rms difference", "same class"]
    titles += ["accuracy", "mean AUC", "rms error"] if known else []
    rows: Rows = []
    for answer in answers:
        for name, array in answer.by.items():
            row: tuple[Any, ...] = (*([answer.name] if several else []), name, *_distance(answer, array))
            rows.append((*row, *_quality(answer, array)) if known else row)
    note = f"Differences are those from {reference}."
    if known:
        note += " Accuracy and AUC are those of outputs that y calls classes, rms errors those of the others."
    filled = [i for i in range(len(titles)) if any(row[i] is not None for row in rows)]
    return {
        "titles": [titles[i] for i in filled],
        "rows": [tuple(row[i] for i in filled) for row in rows],
        "note": note,
    }


def _distance(answer: Answers, array: Array) -> tuple[Any, ...]:
    """Return how far an implementation is from the reference."""
    if array is answer.reference:
        return None, None, None
    difference = np.abs(array.astype(np.float64) - answer.reference)
    same = None
    if array.ndim == 2 and array.shape[1] > 1:
        same = f"{100 * np.mean(array.argmax(axis=1) == answer.reference.argmax(axis=1)):.2f} %"
    return float(difference.max()), float(np.sqrt(np.mean(difference**2))), same


def _quality(answer: Answers, array: Array) -> tuple[Any, ...]:
    """Return how far an implementation is from the truth: accuracy and AUC, or the error."""
    if answer.truth is None:
        return None, None, None
    if not answer.classes:
        truth = answer.truth.reshape(array.shape) if answer.truth.size == array.size else None
        error = None if truth is None else float(np.sqrt(np.mean((array - truth.astype(np.float64)) ** 2)))
        return None, None, error
    chosen = array.argmax(axis=1) if array.shape[1] > 1 else (array[:, 0] > 0.5).astype(int)
    areas = [row["auc"] for row in classifiers.roc_table(answer.labels, {"": array}) if row["auc"] is not None]
    mean = f"{100 * float(np.mean(areas)):.2f} %" if areas else None
    return f"{100 * np.mean(chosen == answer.labels):.2f} %", mean, None


def _cards(
    hls_model: HLSModel, answers: Sequence[Answers], checks: checking.Checks, total: costs.Cost
) -> list[tuple[str, Any, str]]:
    parameters = sum(c.values.size for node in hls_model for _, c in numbers.constants_of(node))
    cards: list[tuple[str, Any, str]] = [
        ("Layers", len(hls_model.nodes), f"{parameters:,} parameters"),
        ("Types that lose values", len(checks.damaged), f"of {len(checks)}; see Checks"),
        ("Multipliers", total.multipliers, f"{total.dsps:,} DSPs, estimated"),
        ("Interval in cycles", total.interval, f"latency {total.latency:,}, estimated"),
    ]
    if "Keras" in answers[0].by:
        worst = max(float(np.abs(a.by["hls"] - a.reference).max()) for a in answers)
        cards.insert(1, ("Largest difference", worst, "from Keras' answers"))
    return cards


def _checks(checks: checking.Checks, samples: int) -> dict[str, Any]:
    """Return the checks as a table that fits a page."""
    titles = (
        *("layer", "role", "type", "change", "wrapped", "saturated", "underflowed", "of"),
        *("unused integer bits", "unused fraction bits", "constant outputs"),
    )
    rows = [
        (
            *(c.layer, c.role, plots.short(c.type), c.advice, c.wrapped, c.saturated, c.underflowed, c.values),
            *(c.unused_integer_bits, c.unused_fraction_bits, c.constant_outputs),
        )
        for c in checks
    ]
    return {"titles": titles, "rows": rows, "samples": samples}


def _differences(hls_model: HLSModel, keras_model: Any, shown: list[Array]) -> dict[str, Any]:
    rows = numbers.compare_table(keras_model, hls_model, shown)
    titles = ("layer", "folded", "type", "largest difference", "rms difference", "largest value", "relative norm")
    return {
        "distribution": _png(plots.compare(keras_model, hls_model, shown, "dist_diff")),
        "norm": _png(plots.compare(keras_model, hls_model, shown, "norm_diff")),
        "titles": titles,
        "rows": [tuple(row.values()) for row in rows],
    }


def _roc(answer: Answers, labels: Sequence[str] | None) -> dict[str, Any]:
    width = answer.reference.shape[1]
    names = labels if labels is not None and len(labels) == width else None
    rows = classifiers.roc_table(answer.labels, answer.by, names)
    figure = classifiers.roc(answer.labels, answer.by, names)
    return {
        "figure": _png(figure),
        "text": f"Background against signal efficiency of {printable(answer.name)}, each class against the rest",
        "titles": tuple(rows[0]),
        "rows": [tuple(row.values()) for row in rows],
    }


def _hardware(hls_model: HLSModel) -> dict[str, Any]:
    folder = Path(hls_model.settings.output_dir)
    found: dict[str, Any] = {"folder": str(folder), "titles": COLUMNS, "rows": [], "error": ""}
    try:
        found["rows"] = parse_reports(folder, hls_model.settings.project_name).rows()
    except ToolError as error:
        found["error"] = str(error)
    return found


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return yaml.dump(_plain(config), sort_keys=False, allow_unicode=True) if config else "all defaults"


def _plain(value: Any) -> Any:
    """Return settings made of what YAML knows: a type as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# ***** the page *****


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kconvert", "templates/report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.filters["cell"] = lambda value: printable(cell(value))
    environment.filters["numeric"] = _numeric
    return environment


def _numeric(rows: Rows, column: int) -> bool:
    """Whether a column holds numbers alone."""
    values = [row[column] for row in rows if row[column] is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _render(values: Mapping[str, Any]) -> str:
    folder = resources.files("kconvert") / "templates" / "report"
    script = (folder / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            **values,
            sections=_sections(values),
            style=_markup((folder / "style.css").read_text(encoding="utf-8")),
            script=_markup(script),
            script_hash=f"sha256-{digest}",  # the browser runs this script and no other
        )
    )


def _sections(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    titles = {
        "overview": "Overview",
        "network": "Network",
        "differences": "Difference from Keras",
        "ranges": "Ranges",
        "checks": "Checks",
        "roc": "ROC",
        "hardware": "Hardware",
        "settings": "Settings",
    }
    absent = {"differences"} if not values["differences"] else set()
    absent |= {"roc"} if not values["rocs"] else set()
    marks = {"checks": values["damaged"]}
    return [{"key": key, "title": title, "mark": marks.get(key)} for key, title in titles.items() if key not in absent]


def _markup(text: str) -> Any:
    """Mark a text as HTML of our own making."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - files of the package, and drawings whose names are escaped


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    return base64.b64encode(buffer.getvalue()).decode()


def _write(path: Path, text: str) -> None:
    """Write the page beside the old one and move it in place."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
            page = Path(folder) / "page.html"
            page.write_text(text, encoding="utf-8")
            os.replace(page, path)
    except OSError as error:
        raise WriteError(f"cannot write the report {path}: {error.strerror}") from error
