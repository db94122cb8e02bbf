"""One comparison of everything that a Keras model has become: firmware, tflite, kmodel."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError, ModelError
from kconvert.packages import import_package

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kconvert.kpu import KModel
    from kconvert.model import HLSModel

Array = npt.NDArray[Any]

REFERENCE = "Keras"
MAX_POINTS = 4000  # of one panel of the figure
MAX_OUTPUTS = 6  # for which all orders are tried


@dataclass(frozen=True)
class Outcome:
    """How one implementation compares with Keras."""

    name: str
    max_difference: float
    mean_difference: float
    argmax_agreement: float | None  # part of the samples, None if the model is no classifier
    accuracy: float | None  # part of the samples, None without labels

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "implementation": self.name,
            "max difference": self.max_difference,
            "mean difference": self.mean_difference,
            "argmax agreement": self.argmax_agreement,
            "accuracy": self.accuracy,
        }


class Comparison(Sequence[Outcome]):
    """Outcomes, Keras first; prints as a table."""

    def __init__(self, outcomes: Sequence[Outcome], outputs: Mapping[str, list[Array]]) -> None:
        self._outcomes = tuple(outcomes)
        self.outputs = dict(outputs)
        """What each implementation answers: a list of arrays [n, ...] in the order and layout of Keras."""

    def __len__(self) -> int:
        return len(self._outcomes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return next(o for o in self._outcomes if o.name == index)
        return self._outcomes[index]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each implementation."""
        return [o.row() for o in self._outcomes]

    def __str__(self) -> str:
        rows = [list(self.table()[0]), *([_cell(v) for v in r.values()] for r in self.table())]
        widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in rows
        )

    def plot(self) -> Figure:
        """Return a figure: for each implementation its difference from Keras, over what Keras answers.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        from kconvert.profiling.plots import COLOURS, PLAIN, new_figure

        others = self._outcomes[1:]
        figure = new_figure(3.6 * max(1, len(others)), 3.2)
        x = np.concatenate([o.ravel() for o in self.outputs[REFERENCE]])
        shown = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).astype(int)
        for i, outcome in enumerate(others):
            axes = figure.add_subplot(1, len(others), i + 1)
            difference = np.concatenate([o.ravel() for o in self.outputs[outcome.name]]) - x
            axes.plot(x[shown], difference[shown], ".", markersize=2, color=COLOURS[i % len(COLOURS)], rasterized=True)
            axes.axhline(0, color="#888888", linewidth=0.6)
            axes.set_title(f"{outcome.name}: mean {outcome.mean_difference:.2g}", **PLAIN)
            axes.set_xlabel("Keras")
            axes.spines[["top", "right"]].set_visible(False)
        if others:
            figure.axes[0].set_ylabel("difference from Keras")
        return figure


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compare(
    model: Any,
    X: Any,
    *,
    hls: HLSModel | None = None,
    tflite: bytes | str | os.PathLike[str] | None = None,
    kmodel: KModel | bytes | str | os.PathLike[str] | None = None,
    y: Any = None,
    input_mean: float = 0.0,
    input_std: float = 1.0,
) -> Comparison:
    """Compare what a Keras model answers with what its firmware, its tflite model and its kmodel answer.

    Args:
        model: the Keras model; what everything is compared with.
        X: samples as the Keras model takes them, [n, ...] (a list for several inputs).
        hls: a compiled HLSModel.
        tflite: bytes or path of a tflite model, run by LiteRT.
        kmodel: a KModel, or its bytes or path, run by the bit-exact simulator. Compiled from the Keras model itself its
            inputs are in the same order; a kmodel holds no names.
        y: labels, [n] or one-hot [n, classes].
        input_mean: a kmodel with an input of bytes gets round((x * input_std + input_mean) * 255): by default samples
            from 0 to 1, else what it was compiled with.
        input_std: see `input_mean`.

    Returns:
        A :class:`Comparison`; print it for the table, ``plot()`` it for the figure.

    Raises:
        InputError: the samples or labels do not fit, or nothing was given to compare with.
        MissingPackageError: LiteRT is needed and not installed (``pip install ai-edge-litert``).
    """
    given = list(X) if isinstance(X, list | tuple) else [X]
    arrays = [np.asarray(x) for x in given]
    if not arrays or any(a.ndim == 0 or len(a) != len(arrays[0]) or not len(a) for a in arrays):
        raise InputError("X has no samples, or not equally many for all inputs")
    runs: dict[str, Callable[[], list[Array]]] = {}
    if hls is not None:
        runs["csim"] = lambda: _listed(hls.predict(X))
    if tflite is not None:
        names = [t.name for t in model.inputs] if len(arrays) > 1 else []
        runs["tflite"] = lambda: run_tflite(tflite, arrays, names)
    if kmodel is not None:
        runs["kmodel"] = lambda: _run_kmodel(kmodel, arrays, input_mean, input_std)
    if not runs:
        raise InputError("nothing to compare with: give hls=, tflite= or kmodel=")
    reference = [
        np.asarray(o, np.float64) for o in _listed(model.predict(X if len(given) > 1 else arrays[0], verbose=0))
    ]
    outputs = {REFERENCE: reference}
    for name, run in runs.items():
        outputs[name] = _matched(name, [np.asarray(o, np.float64) for o in run()], reference)
    labels = _labels(y, reference)
    return Comparison([_outcome(name, found, reference, labels) for name, found in outputs.items()], outputs)


def _listed(outputs: Any) -> list[Array]:
    if isinstance(outputs, Mapping):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _matched(name: str, found: list[Array], reference: list[Array]) -> list[Array]:
    """Return outputs in the order of Keras': converters reorder them; those of one shape are told by their values."""
    sizes = [(len(r), r.size) for r in reference]
    if sorted((len(f), f.size) for f in found) != sorted(sizes):
        raise InputError(
            f"{name} answers in the shapes {[f.shape for f in found]}, Keras in {[r.shape for r in reference]}"
        )
    orders = [range(len(found))] if len(found) > MAX_OUTPUTS else itertools.permutations(range(len(found)))
    best: list[Array] | None = None
    least = np.inf
    for order in orders:
        if any((len(found[i]), found[i].size) != size for i, size in zip(order, sizes, strict=True)):
            continue
        ordered = [found[i].reshape(r.shape) for i, r in zip(order, reference, strict=True)]
        loss = sum(float(np.abs(o - r).mean()) for o, r in zip(ordered, reference, strict=True))
        if best is None or loss < least:
            best, least = ordered, loss
    if best is None:
        raise InputError(f"the outputs of {name} are in another order than Keras'")
    return best


def _labels(y: Any, reference: list[Array]) -> Array | None:
    if y is None:
        return None
    if len(reference) != 1 or reference[0].ndim != 2:
        raise InputError("y is for a model with one output of shape [n, classes]")
    labels = np.asarray(y)
    count, classes = reference[0].shape
    if labels.shape == (count, classes) and classes > 1:
        return np.asarray(labels.argmax(1))
    if labels.size != count:
        raise InputError(f"y has the shape {labels.shape}; {count} labels, or [{count}, {classes}] one-hot, fit")
    return labels.reshape(-1)


def _classes(outputs: list[Array]) -> Array | None:
    """Return the class that a classifier answers with, None if it is none; one output decides at 0.5."""
    if len(outputs) != 1 or outputs[0].ndim != 2:
        return None
    scores = outputs[0]
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0.5).astype(int)


def _outcome(name: str, outputs: list[Array], reference: list[Array], labels: Array | None) -> Outcome:
    differences = np.concatenate([np.abs(o - r).ravel() for o, r in zip(outputs, reference, strict=True)])
    mine, keras = _classes(outputs), _classes(reference)
    return Outcome(
        name,
        float(differences.max()),
        float(differences.mean()),
        None if mine is None or keras is None else float((mine == keras).mean()),
        None if labels is None or mine is None else float((mine == labels).mean()),
    )


def run_tflite(
    tflite: bytes | str | os.PathLike[str], inputs: Sequence[Array], names: Sequence[str] = ()
) -> list[Array]:
    """Run a tflite model by LiteRT, sample by sample.

    Args:
        tflite: bytes or path.
        inputs: one array [n, ...] for each input.
        names: what Keras calls these inputs; they are in the model's order if it has other names.

    Returns:
        One array [n, ...] for each output, in the model's order and layout.

    Raises:
        ModelError: LiteRT cannot load the model.
        MissingPackageError: LiteRT is not installed.
    """
    litert = import_package("ai_edge_litert.interpreter", "running a tflite model", "ai-edge-litert")
    source = (
        {"model_content": bytes(tflite)} if isinstance(tflite, bytes | bytearray) else {"model_path": os.fspath(tflite)}
    )
    try:
        interpreter = litert.Interpreter(**source)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT cannot load the tflite model: {error}") from error
    ports, results = interpreter.get_input_details(), interpreter.get_output_details()
    if len(ports) != len(inputs):
        raise InputError(f"the tflite model has {len(ports)} inputs, and {len(inputs)} arrays were given")
    keys = [port["name"].removeprefix("serving_default_").partition(":")[0] for port in ports]
    if sorted(keys) == sorted(names):
        ports = [ports[keys.index(name)] for name in names]
    found: list[list[Array]] = [[] for _ in results]
    for i in range(len(inputs[0])):
        for port, array in zip(ports, inputs, strict=True):
            if array[i].size != np.prod(port["shape"]):
                raise InputError(
                    f"samples of shape {array.shape[1:]} do not fit the tflite input {tuple(port['shape'])}"
                )
            interpreter.set_tensor(port["index"], _as_stored(array[i].reshape(port["shape"]), port))
        interpreter.invoke()
        for k, result in enumerate(results):
            found[k].append(_as_real(interpreter.get_tensor(result["index"]), result))
    return [np.concatenate(f) if f[0].ndim else np.stack(f) for f in found]


def _as_stored(values: Array, port: Mapping[str, Any]) -> Array:
    """Return values as an input holds them: quantised if it is of integers."""
    kind = np.dtype(port["dtype"])
    scale, zero = port["quantization"]
    if kind.kind not in "iu" or not scale:
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.asarray(np.clip(np.rint(values / scale + zero), limits.min, limits.max), kind)


def _as_real(values: Array, port: Mapping[str, Any]) -> Array:
    scale, zero = port["quantization"]
    if values.dtype.kind not in "iu" or not scale:
        return values
    return np.asarray((values.astype(np.float64) - zero) * scale)


def _run_kmodel(kmodel: Any, arrays: Sequence[Array], mean: float, std: float) -> list[Array]:
    from kconvert.kpu.kmodel import KModel
    from kconvert.kpu.wire import DataType

    made = kmodel if isinstance(kmodel, KModel) else KModel.load(kmodel)
    if len(made.inputs) != len(arrays):
        raise InputError(f"the kmodel has {len(made.inputs)} inputs, and {len(arrays)} arrays were given")
    fed = []
    for port, array in zip(made.inputs, arrays, strict=True):
        if port.range.datatype is DataType.UINT8 and array.dtype != np.uint8:
            pixels = np.rint((array.astype(np.float64) * std + mean) * 255)
            if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255:
                raise InputError(
                    f"the kmodel takes pixels, and the samples make {pixels.min():g} to {pixels.max():g} instead of 0 "
                    f"to 255: give the input_mean and input_std that it was compiled with"
                )
            array = pixels.astype(np.uint8)
        fed.append(np.moveaxis(array, -1, 1) if array.ndim == 4 else array)
    outputs = made.infer(fed if len(fed) > 1 else fed[0])
    return [np.moveaxis(o, 1, -1) if o.ndim == 4 else o for o in outputs]
