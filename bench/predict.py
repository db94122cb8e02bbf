"""Samples a second of kconvert, of Keras and of hls4ml, on the same machine, for the same weights, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package beside this folder, installed or not

import numpy as np  # noqa: E402
from _measure import rate, spent  # noqa: E402
from _models import CASES, agreement, prepare  # noqa: E402

import kconvert  # noqa: E402

RESULTS = HERE / "results"


def convert(model_file: Path, precision: str, change: float = 0.0) -> kconvert.HLSModel:
    """Convert the model, with `change` added to its weights."""
    spec = kconvert.read_model(model_file)
    if change:
        layers = [dataclasses.replace(n, weights=tuple(w + change for w in n.weights)) for n in spec.layers]
        spec = dataclasses.replace(spec, layers=tuple(layers))
    config = kconvert.config_from_keras_model(spec, granularity="name", default_precision=precision)
    return kconvert.convert_from_keras_model(spec, hls_config=config)


def compile_times(model_file: Path, precision: str) -> dict[str, dict[str, float]]:
    """Time to compile with an empty cache, then another conversion of the same model, then one with other weights."""
    kept = os.environ.get("KCONVERT_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["KCONVERT_CACHE"] = cache
        try:
            changes = {"cold": 0.0, "again": 0.0, "new_weights": 2.0**-6}
            return {key: spent(convert(model_file, precision, change).compile) for key, change in changes.items()}
        finally:
            os.environ.pop("KCONVERT_CACHE")
            if kept is not None:
                os.environ["KCONVERT_CACHE"] = kept


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    case = CASES[name]
    model_file, data_file = prepare(name, RESULTS / "models")
    data = np.load(data_file)
    x = np.resize(data["x"], (case.batch, *case.shape))
    found: dict[str, Any] = {"compile": compile_times(model_file, options.precision)}

    model = convert(model_file, options.precision)
    model.compile()
    found["argmax"], found["max_error"] = agreement(np.asarray(model.predict(data["x"])), data["keras"])
    for key, threads in (("one_thread", 1), ("all_threads", None)):
        found[key] = rate(
            lambda threads=threads: model.predict(x, threads=threads), len(x), options.rounds, options.seconds
        )
    if not options.skip_keras:
        found["keras"] = keras_rate(model_file, x, options)
    found["peer"] = peer(name, data_file, options) if options.peer else None
    return found


def keras_rate(model_file: Path, x: Any, options: argparse.Namespace) -> dict[str, float]:
    """Speed of Keras' own predict, in one thread."""
    import keras
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # set for the model before
    model = keras.models.load_model(model_file)
    return rate(lambda: model.predict(x, batch_size=1024, verbose=0), len(x), options.rounds, options.seconds)


def peer(name: str, data_file: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """What hls4ml does with the same model, or None where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", RESULTS / f"peer-{name}.log"
        arguments = [name, str(data_file), str(result), str(options.rounds), str(options.seconds)]
        with log.open("w") as stream:
            subprocess.run(
                [options.peer, str(HERE / "_peer_hls4ml.py"), *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not result.exists():
            print(f"the peer failed on {name}: see {log}", file=sys.stderr)
            return None
        return json.loads(result.read_text())


def table(rows: list[list[str]]) -> str:
    """Columns of equal width, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))] for r in rows]
    return "\n".join("  ".join(line) for line in lines)


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print the tables; bench/README.md says what the columns mean."""
    speed = [
        "model | 1 thread /cpu-s | median | 1 thread /s | all threads /s | Keras /cpu-s | peer /cpu-s"
        " | x Keras | x peer"
    ]
    other = [
        "model | compile s | cpu s | again s | new weights s | peer compile cpu s | argmax = Keras | max error"
        " | peer argmax | peer max error"
    ]
    for name, r in results.items():
        case, one, peer = CASES[name], r["one_thread"], r["peer"]
        best, keras = one["per_cpu_s"], r.get("keras", {}).get("per_cpu_s")
        mark = "" if peer else "*"
        peer_rate = peer["rate"]["per_cpu_s"] if peer else case.peer_rate
        peer_compile = peer["compile"]["cpu_s"] if peer else case.peer_compile
        speed.append(
            f"{name} | {best:,.0f} | {one['per_cpu_s_median']:,.0f} | {one['per_s']:,.0f}"
            f" | {r['all_threads']['per_s']:,.0f} | {f'{keras:,.0f}' if keras else '-'} | {peer_rate:,.0f}{mark}"
            f" | {f'{best / keras:.2f}' if keras else '-'} | {best / peer_rate:,.0f}{mark}"
        )
        took = r["compile"]
        other.append(
            f"{name} | {took['cold']['wall_s']:.2f} | {took['cold']['cpu_s']:.2f} | {took['again']['wall_s']:.3f}"
            f" | {took['new_weights']['wall_s']:.3f} | {peer_compile:.1f}{mark} | {r['argmax']:.3f}"
            f" | {r['max_error']:.4f}" + (f" | {peer['argmax']:.3f} | {peer['max_error']:.4f}" if peer else " | - | -")
        )
    for lines in (speed, other):
        print(table([line.split(" | ") for line in lines]), end="\n\n")
    if not all(r["peer"] for r in results.values()):
        print("* documented figures of hls4ml 1.3.0, for orientation: not measured on this machine (see --peer)")


def machine() -> dict[str, Any]:
    """Where and when this was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print, write results/predict.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(CASES), help="comma separated; all: %(default)s")
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that can import hls4ml and tensorflow")
    parser.add_argument("--skip-keras", action="store_true", help="do not measure Keras")
    parser.add_argument("--precision", default="ap_fixed<16,6>", help="default precision of kconvert (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a round (%(default)s)")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"no model {min(unknown)!r}; there are {', '.join(CASES)}")
    RESULTS.mkdir(exist_ok=True)
    before, results = machine(), {}
    try:
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr)
            results[name] = measure(name, options)
    finally:  # what was measured before an error or Ctrl-C is worth having
        print(f"{before['cpu']}, {before['cores']} cores, load {before['load'][0]:.1f}, {options.precision}\n")
        show(results)
        report = {"machine": before, "precision": options.precision, "models": results}
        (RESULTS / "predict.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
