"""Speed of approximate multipliers: float Keras against the table and the low-rank form, in training and inference."""

from __future__ import annotations

import argparse
import json
import os
import sys
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
    member = next(known for known in approx.library() if known.name == options.multiplier)

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


def without_source(member: Any) -> Any:
    """Return a multiplier of which only the table is known."""
    return approx.ApproximateMultiplier(f"{member.name} as a table", member.performance_metric, member.error_map)


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
    options = parser.parse_args()
    found = measure(options)
    show(found)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "multiplier": options.multiplier, "speed": found}
    (RESULTS / "approx.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
