"""Synthesis of LUT networks with Yosys, out of context for a 7-series device, and what it needs.

``python -m kconvert_contrib.lutnet.synthesis model.keras`` prints the cells of a model; without one, those of a network
with random tables and the layers that are named by their sizes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

import kconvert
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ToolError
from kconvert.tables import text_table

from .verilog import design, export_verilog


def synthesise(
    model: kconvert.HLSModel, *, registers: bool = True, sums: bool = True, timeout: float = 1800.0
) -> dict[str, int]:
    """Return how many cells of each type the LUT layers of a converted model need, after optimisation.

    Args:
        model: A converted model.
        registers: Whether a register follows each layer.
        sums: Whether counters of ones are among the cells where the model sums bits.
        timeout: Seconds that Yosys may take; a network of 2,550 tables takes about one minute.

    Raises:
        GraphError: the model has no LUT layers, or they are not one chain.
        ToolError: Yosys is not installed, failed, or took too long.
    """
    yosys = shutil.which("yosys")
    if yosys is None:
        raise ToolError("yosys is not on PATH: install it (Debian, Ubuntu: apt-get install yosys)")
    with tempfile.TemporaryDirectory(prefix="kconvert-") as folder:
        export_verilog(model, folder, registers=registers, sums=sums)
        command = [yosys, "-q", "-l", "log", f"{design(model).name}_synth.ys"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"yosys took more than {timeout:g} seconds; give it more, or a smaller network") from error
        if done.returncode:
            raise ToolError(f"yosys failed: {(done.stderr.strip() or done.stdout.strip())[-2000:]}")
        log = (Path(folder) / "log").read_text(encoding="utf-8", errors="replace")
    cells = log.rpartition("Number of cells:")[2]
    return {name: int(count) for name, count in re.findall(r"^ {5,}([A-Z]\w*) +(\d+)$", cells, re.MULTILINE)}


def look_up_tables(cells: Mapping[str, int]) -> int:
    """Return how many of the cells of a synthesis are look-up tables, of any size."""
    return sum(count for name, count in cells.items() if re.fullmatch(r"LUT\d", name))


def random_network(inputs: int, sizes: tuple[int, ...], seed: int = 1) -> ModelSpec:
    """Return a model of layers of random tables of six inputs."""
    random = np.random.default_rng(seed)
    config = {"n_inputs": 6, "connection": "random", "binary": True, "batch_norm": False, "lut_binarize": False}
    layers = [LayerSpec("InputLayer", "x", {"batch_shape": [None, inputs]}, ((),))]
    for number, units in enumerate(sizes):
        width = (inputs, *sizes)[number]
        arrays = (random.random((units, 64)).astype(np.float32), random.integers(width, size=(units, 6)))
        source = ((TensorRef(layers[-1].name),),)
        layers.append(LayerSpec("DifferentiableLut", f"lut{number}", {**config, "units": units}, source, arrays))
    return ModelSpec("network", tuple(layers), (TensorRef("x"),), (TensorRef(layers[-1].name),))


@click.command()
@click.argument("model", required=False)
@click.option("--inputs", default=64, show_default=True, help="Bits of a sample, without a model.")
@click.option("--sizes", default="96,48,24", show_default=True, help="Nodes of every layer, without a model.")
def main(model: str | None, inputs: int, sizes: str) -> None:
    """Print the cells that the LUT layers of MODEL need, and how many look-up tables they are."""
    source = model or random_network(inputs, tuple(int(size) for size in sizes.split(",")))
    converted = kconvert.convert_from_keras_model(source)
    part = design(converted)
    titles, columns = ["cell", "tables"], [synthesise(converted, sums=False)]
    if part.sums:
        titles.append("with sums")
        columns.append(synthesise(converted))
    nodes = sum(stage.node.units for stage in part.stages)
    rows = [(name, *(cells.get(name, 0) for cells in columns)) for name in sorted(set().union(*columns))]
    click.echo(f"{nodes} nodes in {len(part.stages)} layers; after synthesis:")
    click.echo(text_table(titles, [*rows, ("all LUT", *map(look_up_tables, columns))]))


if __name__ == "__main__":
    main()
