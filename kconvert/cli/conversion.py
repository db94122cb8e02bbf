"""The commands from a model file to a project: config, convert, compile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kconvert.cli.console import PATH, Command, Result, Table, config_option, unsafe_option
from kconvert.config import BACKENDS, DEFAULT_PRECISION, GRANULARITIES, ProjectSettings

if TYPE_CHECKING:
    from kconvert.model import HLSModel

_DEFAULTS = ProjectSettings()


@click.command(
    cls=Command,
    example="kconvert config -m model.h5 -g name -x 'ap_fixed<16,6>' -o config.yml\n"
    "kconvert config -m model.json -w weights.h5 -p jets -d jets-prj -f xcu250-figd2104-2L-e -o config.yml",
)
@click.option("-m", "--model", type=PATH, required=True, help="Model file: .keras, .h5, .hdf5 or .json.")
@click.option("-w", "--weights", type=PATH, help="File of the weights, for a .json.")
@click.option("-p", "--project", default=_DEFAULTS.project_name, show_default=True, help="Name of the project.")
@click.option("-d", "--dir", "folder", default=_DEFAULTS.output_dir, show_default=True, help="Folder of the project.")
@click.option("-f", "--fpga", "--part", "part", default=_DEFAULTS.part, show_default=True, help="FPGA part number.")
@click.option(
    *("-ba", "--backend"),
    type=click.Choice(BACKENDS, case_sensitive=False),
    default=_DEFAULTS.backend,
    show_default=True,
    help="The vendor's tool.",
)
@click.option(
    "-c", "--clock", type=float, default=_DEFAULTS.clock_period, show_default=True, help="Clock period in ns."
)
@click.option(
    *("-g", "--granularity"),
    type=click.Choice(GRANULARITIES),
    default="model",
    show_default=True,
    help="Write settings of the whole model, also of each layer type, or also of each layer.",
)
@click.option("-x", "--precision", default=DEFAULT_PRECISION, show_default=True, help="Default type.")
@click.option("-r", "--reuse-factor", type=int, default=1, show_default=True, help="Default reuse factor.")
@click.option(
    "--io-type", default=_DEFAULTS.io_type, show_default=True, help="io_parallel or io_stream: how tensors pass."
)
@click.option("-o", "--output", type=PATH, help="File to write; standard output if left out.")
@unsafe_option
def config(
    model: Path,
    weights: Path | None,
    project: str,
    folder: str,
    part: str,
    backend: str,
    clock: float,
    granularity: str,
    precision: str,
    reuse_factor: int,
    io_type: str,
    output: Path | None,
    allow_unsafe: bool,
) -> Result:
    """Write the settings file of a model, to edit and to convert.

    Paths in it are relative to the file.
    """
    from kconvert.converters import config_from_keras_model, read_model
    from kconvert.settings_file import ConversionFile, as_mapping, dump_yaml

    options: dict[str, Any] = {
        "output_dir": (output.parent if output else Path()) / folder,
        "project_name": project,
        "backend": backend,
        "part": part,
        "clock_period": int(clock) if clock.is_integer() else clock,
        "io_type": io_type,
    }
    ProjectSettings(**{**options, "output_dir": folder})  # says what is wrong with them
    spec = read_model(model, weights, allow_unsafe=allow_unsafe)
    settings = config_from_keras_model(spec, granularity, precision, reuse_factor)
    content = as_mapping(ConversionFile(model, weights, settings, options), output.parent if output else Path())
    text = dump_yaml(content)
    if output is None:
        return Result(content, [text.rstrip()])
    _write_text(output, text)
    return Result({"output": str(output), "config": content}, [f"wrote {output}"])


def _write_text(path: Path, text: str) -> None:
    from kconvert.samples import replacing

    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


@click.command(cls=Command, example="kconvert convert -c config.yml")
@config_option
@click.option("--fifo-depths", is_flag=True, help="Measure how deep streams have to be, and write that.")
@unsafe_option
def convert(config: Path, fifo_depths: bool, allow_unsafe: bool) -> Result:
    """Convert a model and write its project folder."""
    from kconvert.converters import convert_from_config

    model = convert_from_config(config, allow_unsafe=allow_unsafe)
    depths = {"fifo_depths": model.fifo_depths(keep=True)} if fifo_depths else {}
    folder = model.write()
    settings = model.settings
    layers = _layers(model)
    data = {
        "project": str(folder),
        "project_name": settings.project_name,
        "backend": settings.backend,
        "part": settings.part,
        "layers": layers,
        **depths,
    }
    return Result(data, [_table_of(layers), f"wrote the project {settings.project_name} into {folder}"])


@click.command(name="compile", cls=Command, example="kconvert compile -c config.yml")
@config_option
@unsafe_option
def compile_(config: Path, allow_unsafe: bool) -> Result:
    """Compile the C++ of a model for this machine.

    The result is kept in a cache, for predict, trace, compare and tune. Nothing is written into the project folder.
    """
    from kconvert.converters import convert_from_config

    model = convert_from_config(config, allow_unsafe=allow_unsafe, test_bench=False)
    start = time.monotonic()
    model.compile()
    seconds = time.monotonic() - start
    return Result(
        {"seconds": round(seconds, 3), "layers": _layers(model)},
        [f"compiled {len(model.nodes)} layers in {seconds:.2f} s"],
    )


def _layers(model: HLSModel) -> list[dict[str, Any]]:
    return [
        {
            "layer": node.name,
            "operation": type(node).__name__,
            "shape": list(node.output.shape),
            "result": str(node.result_type),
            "parameters": sum(c.values.size for r, c in node.constants().items() if not r.endswith("table")),
        }
        for node in model.nodes
    ]


def _table_of(layers: list[dict[str, Any]]) -> Table:
    rows = [[*layer.values()] for layer in layers]
    for row in rows:
        row[2] = "x".join(map(str, row[2]))
    return Table(list(layers[0]), rows)
