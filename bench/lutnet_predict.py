"""Inference speed of BinaryBrain's network of look-up tables, by what it is given; tables are random."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not

import numpy as np  # noqa: E402
from _measure import rate  # noqa: E402
from predict import machine  # noqa: E402

import kconvert  # noqa: E402
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef  # noqa: E402
from kconvert.tables import text_table  # noqa: E402
from kconvert_contrib import lutnet  # noqa: E402

INPUTS, UNITS = 784, (1024, 512, 256, 256, 128, 360)
TABLES = {"n_inputs": 6, "binary": True, "batch_norm": False, "lut_binarize": True}


def network(units: tuple[int, ...] = UNITS) -> ModelSpec:
    """Return the network in the neutral form: no Keras is needed."""
    random, layers = np.random.default_rng(1), [LayerSpec("InputLayer", "x", {"batch_shape": [None, INPUTS]}, ((),))]

    def add(class_name: str, config: dict[str, Any], *weights: Any) -> None:
        call = ((TensorRef(layers[-1].name),),)
        layers.append(LayerSpec(class_name, f"layer{len(layers)}", config, call, weights))

    add("Binarize", {"threshold": 0.5, "low": 0.0, "high": 1.0})
    for inputs, count in zip((INPUTS, *units), units, strict=False):
        tables = random.random((count, 64)).astype(np.float32)
        add("DifferentiableLut", {**TABLES, "units": count}, tables, random.integers(inputs, size=(count, 6)))
    wires = np.arange(units[-1]).reshape(-1, 6)
    add("AverageLut", {"units": len(wires), "n_inputs": 6, "low": -1.0, "high": 1.0}, wires)
    add("Reduce", {"units": 10})
    return ModelSpec("seed", tuple(layers), (TensorRef("x"),), (TensorRef(layers[-1].name),))


def cases(samples: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is measured: predict and the bit-sliced engine, one thread each."""
    model = kconvert.convert_from_keras_model(network())
    model.compile()
    bits = np.random.default_rng(2).random((samples, INPUTS)) > 0.5
    engine, packed = lutnet.BitSliced(model), lutnet.pack(bits)
    expected = model.predict(bits[:2000])
    if not np.array_equal(engine.predict(packed[:2000]), expected):
        raise SystemExit("the answers differ")
    for name in ("float32", "uint8", "bool"):
        x = bits.astype(name)
        yield f"predict, {name}", lambda x=x: model.predict(x, threads=1)  # type: ignore[misc]
    yield "BitSliced.predict, bool", lambda: engine.predict(bits, threads=1)
    yield "BitSliced.predict, packed", lambda: engine.predict(packed, threads=1)
    yield "BitSliced.counts, packed", lambda: engine.counts(packed, threads=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=16384, help="of a call (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.1, help="CPU time of a round (%(default)s)")
    options = parser.parse_args()
    where, rows = machine(), []
    for name, work in cases(options.samples):
        speed = rate(work, options.samples, options.rounds, options.seconds)
        rows.append((name, *(f"{speed[key] / 1e6:.2f}" for key in ("per_cpu_s", "per_cpu_s_median"))))
    print(f"{where['cpu']}, load {where['load'][0]:.1f}; million images a CPU-second, one thread")
    print(text_table(("given", "best", "median"), rows))


if __name__ == "__main__":
    main()
