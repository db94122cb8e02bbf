"""Samples a second of the KPU simulator, against the stated speed of the original one."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not

import numpy as np  # noqa: E402
from _measure import rate  # noqa: E402

from kconvert.kpu import Input, KModel  # noqa: E402
from kconvert.kpu.k210 import LOWEST_X, Activation, BatchNorm, Pool, Registers, map_bytes  # noqa: E402
from kconvert.kpu.nodes import Dequantize, KpuConv2D, KpuUpload, Node, ResizeImage, ResizeMode  # noqa: E402
from kconvert.kpu.wire import NO_RANGE, DataType, Memory, MemoryRange, QuantParam  # noqa: E402

RESULTS = HERE / "results"
STEP = 1 << 18  # maps take turns in two places
TARGET = 10  # times the original

random = np.random.default_rng(0)


@dataclass(frozen=True)
class Layer:
    """One layer of the KPU."""

    out: int
    kernel: int = 3
    depthwise: bool = False
    pool: Pool = Pool.NONE
    upscale: bool = False  # afterwards, in main memory: twice the size


def relu_tables(taps: int, channels: int) -> tuple[BatchNorm, Activation]:
    """Batch norm and activation of a quantised layer with ReLU: a long line, and short ones near its end."""
    spread = int(255 * 70 * taps**0.5) * 32
    starts = np.array([LOWEST_X, 0, *np.linspace(spread * 0.97, spread, 14)]).astype(np.int64)
    shift = min(20, int(np.log2(64 * spread / 255)))
    lines = Activation(
        starts, np.array([0] + [64] * 15), np.array([0] + [shift] * 15), np.array([0, 0, *[248] * 14], np.uint8)
    )
    norm = BatchNorm(np.full(channels, 1 << 20), random.integers(-1000, 1000, channels), np.full(channels, 15))
    return norm, lines


def network(channels: int, size: int, layers: list[Layer]) -> KModel:
    """A model of random weights: an image in KPU memory, layers, float32 maps."""
    nodes: list[Node] = []
    shape, source, image = (channels, size, size), 0, (1, channels, size, size)
    for i, layer in enumerate(layers):
        target = STEP - source
        out_shape = (layer.out, shape[1] // layer.pool.stride, shape[2] // layer.pool.stride)
        leaves = layer.upscale or i == len(layers) - 1
        main = MemoryRange(Memory.MAIN, DataType.UINT8, 0, int(np.prod(out_shape))) if leaves else NO_RANGE
        registers = Registers.for_layer(
            in_shape=shape,
            out_channels=layer.out,
            kernel=layer.kernel,
            depthwise=layer.depthwise,
            pool=layer.pool,
            source=source,
            target=target,
            to_main=leaves,
            pad_value=3,
            arg_x=-128,
            arg_w=-3,
            arg_add=layer.kernel**2 * 128 * 3,
        )
        taps = registers.weight_count // layer.out
        weights = random.integers(0, 256, registers.weight_count).astype(np.uint8)
        nodes.append(KpuConv2D(main, 1, 0, registers, *relu_tables(taps, layer.out), weights))
        shape, source = out_shape, target
        if layer.upscale:
            shape, source = (shape[0], 2 * shape[1], 2 * shape[2]), STEP - source
            larger = MemoryRange(Memory.MAIN, DataType.UINT8, main.size, int(np.prod(shape)))
            kpu = MemoryRange(Memory.KPU, DataType.UINT8, source, map_bytes(*shape))
            nodes.append(ResizeImage(main, larger, (1, *out_shape), *shape[1:], ResizeMode.NEAREST))
            nodes.append(KpuUpload(larger, kpu, (1, *shape)))
    result = MemoryRange(Memory.MAIN, DataType.FLOAT32, -(-main.size // 8) * 8, 4 * main.size)
    nodes.append(Dequantize(main, result, QuantParam(0, 32.0)))
    port = Input(MemoryRange(Memory.KPU, DataType.UINT8, 0, map_bytes(*image[1:])), image)
    used = max(tensor.range.end for node in nodes for tensor in node.writes() if tensor.range.memory is Memory.MAIN)
    return KModel((port,), (result,), tuple(nodes), main_memory=used)


def autoencoder() -> KModel:
    """32x32x3 to 4x4 and back."""
    down = [Layer(out, pool=Pool.MAX_2X2) for out in (16, 32, 64)]
    up = [Layer(out, upscale=True) for out in (64, 32, 16)]
    return network(3, 32, [*down, *up, Layer(3)])


def mobilenet() -> KModel:
    """MobileNetV1 0.25 at 224x224, without the classifier; of a stride of 2 the KPU computes all and drops most."""
    layers = [Layer(8, pool=Pool.LEFT_TOP_2X2)]
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in blocks:
        layers.append(Layer(layers[-1].out, depthwise=True))
        layers.append(Layer(out // 4, kernel=1, pool=Pool.LEFT_TOP_2X2 if stride == 2 else Pool.NONE))
    return network(3, 224, layers)


@dataclass(frozen=True)
class Case:
    """A network, the time that the original takes for a sample, and how many are run at once."""

    make: Any
    original: float  # seconds; a stated figure of a busy machine
    batch: int


CASES = {"autoencoder": Case(autoencoder, 8e-3, 512), "mobilenet": Case(mobilenet, 145e-3, 16)}


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    model = case.make()
    x = random.integers(0, 256, (case.batch, *model.inputs[0].shape[1:])).astype(np.uint8)
    found: dict[str, Any] = {
        "bytes": len(model.to_bytes()),
        "multiply_accumulates": sum(n.work for n in model.nodes if n.on_kpu),
        "original_per_s": 1 / case.original,
    }
    for key, threads in (("one_thread", 1), ("all_threads", None)):
        found[key] = rate(
            lambda threads=threads: model.infer(x, threads=threads), len(x), options.rounds, options.seconds
        )
    found["times_original"] = found["one_thread"]["per_cpu_s"] * case.original
    found["times_original_all_threads"] = found["all_threads"]["per_s"] * case.original
    return found


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    rows = [
        "model | kmodel KB | million MAC | 1 thread /cpu-s | ms/sample | all threads /s | original /s | x original"
        " | x original, all threads"
    ]
    for name, r in results.items():
        one = r["one_thread"]["per_cpu_s"]
        rows.append(
            f"{name} | {r['bytes'] / 1024:.0f} | {r['multiply_accumulates'] / 1e6:.1f} | {one:,.0f} | {1e3 / one:.3f}"
            f" | {r['all_threads']['per_s']:,.0f} | {r['original_per_s']:.0f} | {r['times_original']:.1f}"
            f" | {r['times_original_all_threads']:.1f}"
        )
    cells = [row.split(" | ") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def main() -> None:
    """Measure, print, write results/kpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(CASES), help="comma separated; all: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a round (%(default)s)")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"no model {min(unknown)!r}; there are {', '.join(CASES)}")
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }
    results = {name: measure(CASES[name], options) for name in names}
    show(results)
    (RESULTS / "kpu.json").write_text(json.dumps({"machine": machine, "models": results}, indent=1) + "\n")
    slow = [name for name, r in results.items() if r["times_original"] < TARGET]
    if slow:
        sys.exit(f"less than {TARGET} times the original: {', '.join(slow)}")


if __name__ == "__main__":
    main()
