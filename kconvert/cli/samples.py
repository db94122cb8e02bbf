"""The commands that compute: predict, trace, compare, profile, tune."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kconvert.cli.console import (
    PATH,
    Command,
    Mode,
    Result,
    Table,
    config_option,
    input_option,
    quiet_start,
    unsafe_option,
)
from kconvert.errors import InputError, MissingPackageError, ModelError
from kconvert.progress import working
from kconvert.tuning import METRICS

if TYPE_CHECKING:
    import numpy as np

    from kconvert.model import HLSModel
    from kconvert.samples import Samples

FIGURES = (".png", ".pdf", ".svg")


def _compiled(config: Path, allow_unsafe: bool) -> HLSModel:
    from kconvert.converters import convert_from_config

    model = convert_from_config(config, allow_unsafe=allow_unsafe, test_bench=False)
    model.compile()
    return model


def _samples(model: HLSModel, inputs: Sequence[Path]) -> Samples:
    from kconvert.samples import open_samples

    return open_samples(inputs, {value.producer.name: value.shape for value in model.inputs})


def _outputs(model: HLSModel) -> dict[str, tuple[int, ...]]:
    return {value.producer.name: value.shape for value in model.outputs}


@click.command(cls=Command, example="kconvert predict -c config.yml -i X.npy -o y.npy")
@config_option
@input_option
@click.option("-o", "--output", type=PATH, required=True, help="File for the answers: .npy, .npz, .csv, .txt or .dat.")
@unsafe_option
def predict(config: Path, inputs: tuple[Path, ...], output: Path, allow_unsafe: bool) -> Result:
    """Compute what the hardware answers, to the bit.

    Samples are read and answers written a part at a time: neither has to fit into memory.
    """
    from kconvert.samples import chunk_rows, open_sink

    model = _compiled(config, allow_unsafe)
    samples, shapes = _samples(model, inputs), _outputs(model)
    rows = chunk_rows(sum(v.size for v in [*model.inputs, *model.outputs]))
    start, done = time.monotonic(), 0
    with open_sink(output, shapes, len(samples)) as sink, working("predicting", len(samples)) as advance:
        for arrays in samples.parts(rows):
            answers = model.predict(arrays)
            sink.write(answers if isinstance(answers, list) else [answers])
            done += len(arrays[0])
            advance(len(arrays[0]))
    seconds = time.monotonic() - start
    data = {"output": str(output), "samples": done, "outputs": {k: list(v) for k, v in shapes.items()}}
    rate = f" in {seconds:.2f} s" if done else ""
    return Result({**data, "seconds": round(seconds, 3)}, [f"wrote the answers to {done} samples{rate} into {output}"])


@click.command(cls=Command, example="kconvert trace -c config.yml -i X.npy -o layers.npz")
@config_option
@input_option
@click.option("-o", "--output", type=PATH, required=True, help="File for the outputs of the layers, an .npz.")
@unsafe_option
def trace(config: Path, inputs: tuple[Path, ...], output: Path, allow_unsafe: bool) -> Result:
    """Compute the output of every layer; the .npz holds an array for each, under the layer's name."""
    from kconvert.samples import chunk_rows, member_names, open_sink

    if output.suffix.lower() != ".npz":
        raise InputError(f"{output}: the outputs of the layers are written to an .npz file")
    model = _compiled(config, allow_unsafe)
    samples = _samples(model, inputs)
    shapes = {name: value.shape for name, value in model.traced().items()}
    ranges = {name: (math.inf, -math.inf) for name in shapes}
    done = 0
    with open_sink(output, shapes, len(samples)) as sink, working("tracing", len(samples)) as advance:
        for arrays in samples.parts(chunk_rows(sum(math.prod(shape) for shape in shapes.values()))):
            found = model.trace(arrays)
            sink.write([found[name] for name in shapes])
            for name, (low, high) in ranges.items():
                ranges[name] = min(low, float(found[name].min())), max(high, float(found[name].max()))
            done += len(arrays[0])
            advance(len(arrays[0]))
    layers: list[dict[str, Any]] = [
        {
            "layer": name,
            "array": member.removesuffix(".npy"),
            "shape": list(shape),
            "smallest": ranges[name][0] if done else None,
            "largest": ranges[name][1] if done else None,
        }
        for (name, shape), member in zip(shapes.items(), member_names(shapes), strict=True)
    ]
    table = Table(
        ["layer", "shape", "smallest", "largest"],
        [[x["layer"], "x".join(map(str, x["shape"])), x["smallest"], x["largest"]] for x in layers],
    )
    return Result(
        {"output": str(output), "samples": done, "layers": layers},
        [table, f"wrote the layers' outputs for {done} samples into {output}"],
    )


@click.command(cls=Command, example="kconvert compare -c config.yml -i X.npy -o compare.png")
@config_option
@input_option
@click.option("-o", "--output", type=PATH, default="compare.png", show_default=True, help="File for the figure.")
@click.option("--no-plot", is_flag=True, help="Draw no figure.")
@click.option(
    "--against",
    type=click.Choice(("auto", "keras", "precise")),
    default="auto",
    show_default=True,
    help="Keras itself, or the same network in types so wide that rounding hardly matters; auto: Keras where it is "
    "installed and can load the file.",
)
@unsafe_option
@click.pass_obj
def compare(
    mode: Mode,
    config: Path,
    inputs: tuple[Path, ...],
    output: Path,
    no_plot: bool,
    against: str,
    allow_unsafe: bool,
) -> Result:
    """Compare every layer with the float model: a table, and a figure."""
    from kconvert.profiling.numbers import compare_table

    figure_file = None if no_plot else _figure_file(output)
    model = _compiled(config, allow_unsafe)
    X = _samples(model, inputs).all()
    with quiet_start(mode.debug):
        reference, what = _reference(config, model, against, allow_unsafe)
        rows = compare_table(reference, model, X)
    shown: list[str | Table] = [f"compared with {what}", _table(rows, _COMPARED)]
    if figure_file is not None:
        from kconvert.profiling.plots import compare as draw

        with quiet_start(mode.debug):
            figure = draw(reference, model, X)
        for axes in figure.axes if what != KERAS else ():
            axes.set_xlabel(axes.get_xlabel().replace("Keras", "precise"))
        _save(figure, figure_file)
        shown.append(f"wrote {figure_file}")
    return Result({"reference": what, "layers": rows, "figure": figure_file and str(figure_file)}, shown)


KERAS = "Keras"
PRECISE = "the same network in wide types"


def _reference(config: Path, model: HLSModel, against: str, allow_unsafe: bool) -> tuple[Any, str]:
    """Return what to compare with, and its name."""
    from kconvert.tuning import precise

    reason = ""
    if against != "precise":
        try:
            return _by_keras(config, model, allow_unsafe), KERAS
        except (MissingPackageError, ModelError) as error:
            if against == "keras":
                raise
            reason = "" if isinstance(error, MissingPackageError) else f" ({str(error).partition('. ')[0]})"
    return precise(model.spec), PRECISE + reason


def _by_keras(config: Path, model: HLSModel, allow_unsafe: bool) -> Any:
    from kconvert.converters.readers.by_keras import load_with_keras
    from kconvert.project import MODEL_FILE
    from kconvert.settings_file import read_conversion

    file = read_conversion(config)
    if file.model.name == MODEL_FILE:
        raise ModelError("the copy of the model that a project keeps is none that Keras can load")
    return load_with_keras(file.model, file.weights, model.spec, allow_unsafe=allow_unsafe)


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Return some columns, by the keys of the rows, under the titles to show."""
    return Table(list(columns.values()), [[_short(row[key]) for key in columns] for row in rows])


def _short(value: Any) -> Any:
    return value.replace("ap_", "").replace("AP_", "") if isinstance(value, str) and value.endswith(">") else value


_COMPARED = {
    "layer": "layer",
    "type": "type",
    "max_abs_diff": "largest difference",
    "rms_diff": "rms difference",
    "max_abs_keras": "largest value",
    "relative_norm": "relative",
}
_PROFILED = {
    "layer": "layer",
    "role": "role",
    "type": "type",
    "values": "values",
    "count": "count",
    "zeros": "zeros",
    "smallest": "smallest",
    "median": "median",
    "largest": "largest",
}
_TUNED = {"layer": "layer", "role": "role", "values": "values", "before": "before", "after": "after"}


def _figure_file(path: Path) -> Path:
    if path.suffix.lower() not in FIGURES:
        raise InputError(f"{path}: figures are written to {', '.join(FIGURES)} files")
    return path


def _save(figure: Any, path: Path) -> None:
    from kconvert.samples import replacing

    with replacing(path) as new:
        figure.savefig(new, dpi=150)


@click.command(cls=Command, example="kconvert profile -c config.yml -i X.npy -o profile.png")
@config_option
@click.option(
    *("-i", "--input", "inputs"),
    type=PATH,
    multiple=True,
    help="Samples, as for predict; without them only the weights are looked at.",
)
@click.option("-o", "--output", type=PATH, default="profile.png", show_default=True, help="File for the figure.")
@click.option("--no-plot", is_flag=True, help="Draw no figure.")
@unsafe_option
def profile(config: Path, inputs: tuple[Path, ...], output: Path, no_plot: bool, allow_unsafe: bool) -> Result:
    """Show the ranges of weights and layer outputs beside what their types hold: a table, and a figure."""
    from kconvert.converters import convert_from_config
    from kconvert.profiling.numbers import numerical_table

    figure_file = None if no_plot else _figure_file(output)
    model = convert_from_config(config, allow_unsafe=allow_unsafe, test_bench=False)
    X = None
    if inputs:
        model.compile()
        X = _samples(model, inputs).all()
    rows = numerical_table(hls_model=model, X=X)
    shown: list[str | Table] = [_table(rows, _PROFILED)]
    if figure_file is not None:
        from kconvert.profiling.plots import numerical

        _save(numerical(hls_model=model, X=X), figure_file)
        shown.append(f"wrote {figure_file}")
    return Result({"ranges": rows, "figure": figure_file and str(figure_file)}, shown)


@click.command(
    cls=Command,
    example="kconvert tune -c config.yml -i X.npy -o tuned.yml\n"
    "kconvert tune -c config.yml -i X.npy -y labels.npy --metric accuracy --tolerance 0.005 -o tuned.yml",
)
@config_option
@input_option
@click.option("-y", "--truth", type=PATH, help="Class numbers, one-hot classes or values, for accuracy, auc and mae.")
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="What to keep: agreement with the float network's decisions, mean absolute error, accuracy, area under the "
    "ROC curve; agreement unless said otherwise, with a truth accuracy.",
)
@click.option("--tolerance", type=float, default=0.01, show_default=True, help="How much of it may be lost.")
@click.option("--budget", type=int, default=60, show_default=True, help="How many designs may be compiled.")
@click.option("-o", "--output", type=PATH, required=True, help="Settings file to write.")
@unsafe_option
def tune(
    config: Path,
    inputs: tuple[Path, ...],
    truth: Path | None,
    metric: str | None,
    tolerance: float,
    budget: int,
    output: Path,
    allow_unsafe: bool,
) -> Result:
    """Find the fewest bits, layer by layer, that keep a quality on given samples."""
    from dataclasses import replace

    from kconvert import tuning
    from kconvert.converters import build_model, read_conversion_file
    from kconvert.samples import read_array, replacing
    from kconvert.settings_file import as_mapping, dump_yaml

    file, spec = read_conversion_file(config, allow_unsafe=allow_unsafe)
    X = _samples(build_model(spec), inputs).all()
    y = None if truth is None else _truth(read_array(truth))
    with replacing(output) as new:  # from here on, so that what cannot be written is known before the search
        found = tuning.tune(
            spec,
            X,
            y,
            config=file.hls_config,
            metric=metric or ("agreement" if y is None else "accuracy"),
            tolerance=tolerance,
            budget=budget,
        )
        content = as_mapping(replace(file, hls_config=found.config), output.parent)
        new.write_text(dump_yaml(content), encoding="utf-8")
    data = {
        "output": str(output),
        "metric": found.metric,
        "reference": found.reference,
        "before": found.before,
        "score": found.score,
        "bits_before": found.bits_before,
        "bits_after": found.bits_after,
        "compiles": found.compiles,
        "evaluations": found.evaluations,
        "complete": found.complete,
        "types": found.table,
    }
    ended = "" if found.complete else f"; the budget of {budget} designs ended the search early"
    shown: list[str | Table] = [
        _table(found.table, _TUNED),
        f"{found.metric}: {found.score:.6g} (without rounding {found.reference:.6g}, before {found.before:.6g})",
        f"bits: {found.bits_after} (before {found.bits_before}); {found.compiles} designs compiled{ended}",
        f"wrote {output}",
    ]
    return Result(data, shown)


def _truth(array: np.ndarray) -> np.ndarray:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
