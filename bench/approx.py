"""Speed of approximate multipliers: float Keras against the table and the low-rank form, in training and inference."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not
sys.path.insert(2, str(HERE.parent / "examples"))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from _measure import rate  # noqa: E402
from approx_mnist import lenet  # noqa: E402
from predict import RESULTS, machine, table  # noqa: E402

from kconvert_contrib import approx  # noqa: E402

BATCH = 128
FORMS = {"float Keras": None, "8 bits": None, "low rank": "low_rank", "table": "table"}
LAYERS = {  # inputs (with the zeros around the image) and kernels of LeNet-5
    "conv1": ((32, 32, 1), (5, 5, 1, 6)),
    "conv2": ((14, 14, 6), (5, 5, 6, 16)),
    "linear1": ((400,), (400, 120)),
    "linear2": ((120,), (120, 84)),
    "linear3": ((84,), (84, 10)),
}


def network(form: str, member: Any, data: Any) -> Any:
    """Return LeNet-5 whose layers compute in one form, compiled."""
    keras.utils.set_random_seed(1)
    model = lenet()
    if form != "float Keras":
        net = approx.ApproxNet(model, emulation=FORMS[form] or "auto")
        net.calibrate(data)
        net.assign(member)
        net.mode = "quantised" if form == "8 bits" else "approximate"
        model = net.model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, jit_compile=False)
    return model


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return samples a CPU-second of every form, and of the firmware in the simulation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * options.batches, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    member = find(options.multiplier)

    def of(work: Callable[[], Any]) -> dict[str, float]:
        return rate(work, len(x), options.rounds, options.seconds)

    found: dict[str, dict[str, Any]] = {}
    for form in FORMS:
        model = network(form, member, (x, y))
        found[form] = {
            "train": of(lambda model=model: model.fit(x, y, batch_size=BATCH, verbose=0)),
            "infer": of(lambda model=model: model.predict(x, batch_size=BATCH, verbose=0)),
        }
    for name, chosen in (
        ("firmware, exact", None),
        ("firmware, C++", member),
        ("firmware, table", without_source(member)),
    ):
        net = approx.ApproxNet(lenet())
        net.calibrate((x, y))
        net.assign(chosen or approx.exact_multiplier())
        net.mode = "approximate"
        hls_model = net.convert(output_dir="unused")
        hls_model.compile()
        found[name] = {"infer": of(lambda hls_model=hls_model: hls_model.predict(x, threads=1))}
    return found


def find(name: str) -> Any:
    """Return a member of our library."""
    return next(known for known in approx.library() if known.name == name)


def without_source(member: Any) -> Any:
    """Return a multiplier of which only the table is known."""
    return approx.ApproximateMultiplier(f"{member.name} as a table", member.performance_metric, member.error_map)


def compare(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the speed of the table kernel and of torch-approx's in every layer, or None where that fails."""
    rng = np.random.default_rng(0)

    def codes(*shape: int) -> Any:
        return np.clip(np.rint(32 * rng.normal(size=shape)), -128, 127).astype(np.int8)

    operands = {}
    for layer, (inputs, kernel) in LAYERS.items():
        x = codes(BATCH, *inputs)  # those of the first layer are pixels, the others come out of a ReLU
        operands[layer] = (x if layer == "conv1" else np.maximum(x, 0), codes(*kernel))
    table = find(options.multiplier).table
    if (answer := peer(table, operands, options)) is None:
        return None
    result, theirs = answer
    kernel = approx.TableProduct(table, threads=1)
    layers = {}
    for layer, (x, w) in operands.items():
        call = kernel.matrix if x.ndim == 2 else kernel.convolution
        layers[layer] = {
            "table": rate(lambda call=call, x=x, w=w: call(x, w), BATCH, options.rounds, options.seconds),
            "peer": result["rates"][layer],
            "equal": bool(np.array_equal(call(x, w), theirs[layer])),
        }
    return {"torch": result["torch"], "layers": layers}


def peer(table: Any, operands: dict[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], Any] | None:
    """Return what torch-approx measured of its kernel, and its sums."""
    arrays = {f"{layer}.{name}": a for layer, pair in operands.items() for name, a in zip("xw", pair, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        files = data, sums, result = [Path(folder) / name for name in ("data.npz", "sums.npz", "result.json")]
        np.savez(data, table=table, layers=list(operands), **arrays)
        limits, log = (str(options.rounds), str(options.seconds)), RESULTS / "peer-approx.log"
        with log.open("w") as stream:
            subprocess.run(
                [options.peer, str(HERE / "_peer_torchapprox.py"), *map(str, files), *limits],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=False,
            )
        if not result.exists():
            print(f"the peer failed: see {log}", file=sys.stderr)
            return None
        with np.load(sums) as stored:
            return json.loads(result.read_text()), dict(stored)


def show_peer(found: dict[str, Any]) -> None:
    """Print the layers, and all of them together: a sample goes through one after the other."""
    rows = [["table product", "kconvert /cpu-s", "torch-approx /cpu-s", "x peer", "same sums"]]
    layers = found["layers"].values()
    speeds = {name: [layer[name]["per_cpu_s"] for layer in layers] for name in ("table", "peer")}
    ours, theirs = ([*each, 1 / sum(1 / speed for speed in each)] for each in speeds.values())
    same = [layer["equal"] for layer in layers]
    for name, *speed, equal in zip([*found["layers"], "all"], ours, theirs, [*same, all(same)], strict=True):
        rows.append([name, *(f"{s:,.0f}" for s in speed), f"{speed[0] / speed[1]:.1f}", "yes" if equal else "NO"])
    print(f"\n{table(rows)}")


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    base = found["float Keras"]
    rows = [["form", "training /cpu-s", "time x Keras", "inference /cpu-s", "time x Keras"]]
    for form, figures in found.items():
        row = [form]
        for kind in ("train", "infer"):
            speed = figures.get(kind, {}).get("per_cpu_s")
            row += [f"{speed:,.0f}", f"{base[kind]['per_cpu_s'] / speed:.2f}"] if speed else ["-", "-"]
        rows.append(row)
    print(table(rows))


def main() -> None:
    """Measure, print, write results/approx.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--multiplier", default="truncated_operands_3_3", help="member of our library (%(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="of 128 samples (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a round (%(default)s)")
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that can import torchapprox")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    beside = compare(options) if options.peer else None
    found = measure(options)
    show(found)
    result = {"machine": machine(), "multiplier": options.multiplier, "speed": found}
    if beside:
        show_peer(beside)
        result["peer"] = beside
    (RESULTS / "approx.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
