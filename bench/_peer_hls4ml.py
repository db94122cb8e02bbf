"""Measures hls4ml on one of the benchmark's models; predict.py runs it with the Python of an environment that has it.

Arguments: name of the model, its .npz, the JSON file to write, rounds, seconds of a round.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import hls4ml
import numpy as np
import tensorflow as tf
from _measure import rate, spent
from _models import CASES, agreement, build, weights_of


def main(name: str, data_file: str, result_file: str, rounds: str, seconds: str) -> None:
    """Convert, compile, predict."""
    case, data = CASES[name], np.load(data_file)
    model = build(case, tf.keras)
    model.set_weights(weights_of(data))
    config = hls4ml.utils.config_from_keras_model(
        model, granularity="name", backend="Vitis", default_precision="ap_fixed<16,6>"
    )
    # Without this its softmax gets the wide type of a lossless sum, and bins too wide to tell any classes apart.
    config["LayerName"][model.layers[-2].name]["Precision"]["result"] = "fixed<16,6,RND,SAT>"
    with tempfile.TemporaryDirectory() as folder:
        converted = hls4ml.converters.convert_from_keras_model(
            model, hls_config=config, output_dir=folder, backend="Vitis", io_type="io_parallel"
        )
        compiling = spent(converted.compile)
        x = data["x"][: max(1, min(2000, round(case.peer_rate)))]
        y = converted.predict(x).reshape(len(x), -1)
        found = rate(lambda: converted.predict(x), len(x), int(rounds), float(seconds))
    same, error = agreement(y, data["keras"][: len(x)])
    result = {"version": hls4ml.__version__, "compile": compiling, "rate": found, "argmax": same, "max_error": error}
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
