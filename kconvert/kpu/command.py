"""The command line of the K210: ``kconvert kpu compile | infer | check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from kconvert.cli.console import PATH, Command, Mode, Result, Table, quiet_start
from kconvert.errors import ConfigError, InputError, WriteError


class _Group(click.Group):
    """A group whose help ends with an example."""

    example = "kconvert kpu compile model.tflite model.kmodel -i tflite -o kmodel -t k210 --dataset images"

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example as it is."""
        with formatter.section("Example"):
            formatter.write(f"  {self.example}\n")


@click.group(name="kpu", cls=_Group, invoke_without_command=True)
@click.pass_context
def kpu(context: click.Context) -> None:
    """Compile, run and check networks for the Kendryte K210."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_FORMAT = click.option(
    "--dataset-format",
    type=click.Choice(("image", "raw")),
    default="image",
    show_default=True,
    help="image: png, jpg and bmp, scaled to the input; raw: float32 NCHW (uint8 to infer with an input of uint8).",
)


@kpu.command(
    name="compile",
    cls=Command,
    example=_Group.example,
)
@click.argument("source", type=PATH, metavar="IN")
@click.argument("target_file", type=PATH, metavar="OUT")
@click.option(
    "-i", "--input-format", type=click.Choice(("tflite",)), default="tflite", show_default=True, help="Of IN."
)
@click.option(
    "-o", "--output-format", type=click.Choice(("kmodel",)), default="kmodel", show_default=True, help="Of OUT."
)
@click.option(
    "-t",
    "--target",
    type=click.Choice(("k210", "cpu")),
    default="k210",
    show_default=True,
    help="cpu: nothing runs on the KPU.",
)
@click.option("--dataset", type=PATH, help="Samples to calibrate with: a folder or a file. Needed for uint8.")
@_FORMAT
@click.option(
    "--inference-type", type=click.Choice(("uint8", "float")), default="uint8", show_default=True, help="Of the model."
)
@click.option(
    "--input-mean", type=float, help="Samples are (x - mean) / std. Giving either fixes the input's range.  [0]"
)
@click.option("--input-std", type=float, help="See --input-mean.  [1]")
@click.option(
    "--input-type",
    type=click.Choice(("default", "float", "uint8")),
    default="default",
    show_default=True,
    help="Of the model's input; default: that of the inference.",
)
@click.option("--dump-ir", is_flag=True, help="Write the graph after each step as .dot files beside OUT.")
@click.option("--dump-weights-range", is_flag=True, help="Print the ranges of the weights.")
@click.option(
    "--max-allocator-solve-secs",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="For how long to look for a better plan of memory than a few tries give.",
)
@click.option(
    "--calibrate-method",
    type=click.Choice(("no_clip", "l2")),
    default="no_clip",
    show_default=True,
    help="no_clip: the whole range of every tensor; l2: the part that loses least.",
)
@click.option(
    "--weights-quantize-threshold",
    type=click.FloatRange(min=0),
    default=32.0,
    show_default=True,
    help="Layers whose weights have a wider range stay in float.",
)
@click.option(
    "--output-quantize-threshold",
    type=click.IntRange(min=0),
    default=1024,
    show_default=True,
    help="Results with fewer elements stay in float.",
)
@click.option("--no-quantized-binary", is_flag=True, help="Additions and the like stay in float.")
@click.option("-v", "--verbose", is_flag=True, help="Print each step.")
def compile_(
    source: Path,
    target_file: Path,
    input_format: str,
    output_format: str,
    dump_ir: bool,
    dump_weights_range: bool,
    no_quantized_binary: bool,
    verbose: bool,
    dataset: Path | None,
    **options: Any,
) -> Result:
    """Compile a tflite model IN into a kmodel OUT."""
    from kconvert.kpu.compiler import compile_model

    if target_file.is_dir():
        raise WriteError(f"{str(target_file)!r} is a folder; name a file for the kmodel")
    if target_file.exists() and source.exists() and target_file.samefile(source):
        raise WriteError(f"{str(target_file)!r} is the model itself; name another file for the kmodel")
    lines: list[str] = []
    model = compile_model(
        source,
        dataset,
        target_file,
        progress=lines.append,
        quantized_binary=not no_quantized_binary,
        dump_ir=target_file.parent if dump_ir else None,
        **options,
    )
    size = target_file.stat().st_size
    shown: list[str | Table] = [
        line for line in lines if verbose or (dump_weights_range and line.startswith("weights of "))
    ]
    shown += [model.summary()] if verbose else []
    shown.append(f"wrote {target_file}: {size} bytes, and {model.main_memory} bytes of working memory")
    ranges = [line for line in lines if line.startswith("weights of ")]
    data = {
        "output": str(target_file),
        "bytes": size,
        "working_memory": model.main_memory,
        "operations": len(model.nodes),
    }
    return Result({**data, **({"weights": ranges} if dump_weights_range else {})}, shown)


@kpu.command(cls=Command, example="kconvert kpu infer model.kmodel answers --dataset images")
@click.argument("kmodel", type=PATH)
@click.argument("outdir", type=PATH)
@click.option("--dataset", type=PATH, required=True, help="Samples: a folder or a file.")
@_FORMAT
@click.option("--input-mean", type=float, default=0.0, show_default=True, help="Floats are (x - mean) / std.")
@click.option("--input-std", type=float, default=1.0, show_default=True, help="See --input-mean.")
def infer(
    kmodel: Path, outdir: Path, dataset: Path, dataset_format: Any, input_mean: float, input_std: float
) -> Result:
    """Run KMODEL as the device does; for each sample OUTDIR gets a .bin with all outputs, float32, NCHW."""
    from kconvert.kpu.compiler.dataset import find_files, read_bytes, read_floats
    from kconvert.kpu.kmodel import KModel
    from kconvert.kpu.wire import DataType

    if not (np.isfinite(input_mean) and np.isfinite(input_std)) or input_std <= 0:
        raise ConfigError("--input-mean and --input-std have to be finite, and --input-std positive")
    model = KModel.load(kmodel)
    if len(model.inputs) != 1:
        raise InputError(f"the model has {len(model.inputs)} inputs; a dataset feeds one")
    files = find_files(dataset, dataset_format)
    stems = [f.stem for f in files]
    if len(set(stems)) != len(stems):
        raise InputError(
            f"two samples are called {next(s for s in stems if stems.count(s) > 1)!r}: their results would be one file"
        )
    shape = model.inputs[0].shape[1:]
    in_bytes = model.inputs[0].range.datatype is DataType.UINT8

    def sample(file: Path) -> Any:
        if in_bytes:
            return read_bytes(file, dataset_format, shape)
        return read_floats(file, dataset_format, shape, input_mean, input_std)

    try:
        outdir.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(files), 64):
            part = files[start : start + 64]
            outputs = model.infer(np.stack([sample(f) for f in part]))
            for i, file in enumerate(part):
                flat = np.concatenate([np.asarray(o[i], "<f4").ravel() for o in outputs])
                (outdir / f"{file.stem}.bin").write_bytes(flat.tobytes())
    except OSError as error:
        raise WriteError(f"cannot write into {str(outdir)!r}: {error.strerror or error}") from error
    data = {"outdir": str(outdir), "samples": len(files)}
    return Result(data, [f"wrote the answers to {len(files)} samples into {outdir}"])


@kpu.command(cls=Command, example="kconvert kpu check model.tflite")
@click.argument("model", type=PATH)
@click.pass_obj
def check(mode: Mode, model: Path) -> Result:
    """Tell which layers of MODEL (.tflite, or a Keras file) the KPU runs, and which rule the others break."""
    from kconvert.kpu.compiler.lint import check_layers

    with quiet_start(mode.debug if mode else False):
        report = check_layers(model)
    rows = report.table()
    titles = list(rows[0]) if rows else ["layer"]
    counts = {where: sum(f.where == where for f in report) for where in ("KPU", "partly", "CPU")}
    line = ", ".join(f"{count} {where}" for where, count in counts.items())
    return Result({"layers": rows, **counts}, [Table(titles, [list(r.values()) for r in rows]), line])
