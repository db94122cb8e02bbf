"""Models of real users, from json and weights, and a large one: they convert quickly and agree with Keras."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from tests.conftest import golden
from tests.layers.common import convert

EXAMPLES = "example-models/keras"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["KERAS_conv1d_small", "KERAS_conv2d_model", "jetTagger_Conv2D_Small"])
def test_convolutional_models_agree_with_keras(name: str) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    folder = golden(EXAMPLES)
    architecture, weights = folder / f"{name}.json", folder / f"{name}_weights.h5"
    theirs = tf_keras.models.model_from_json(architecture.read_text(encoding="utf-8"))
    theirs.load_weights(str(weights))
    spec = kconvert.read_model(architecture, weights=weights)
    ours = convert(spec, kconvert.config_from_keras_model(spec, default_precision="fixed<24,10>"))
    x = np.random.default_rng(0).normal(size=(50, *ours.inputs[0].shape))
    assert np.abs(np.asarray(ours.predict(x)) - theirs.predict(x, verbose=0)).max() < 1e-2


SIZES = (16, 500, 500, 500, 500, 500, 5)


def large(folder: Path) -> tuple[Any, list[np.ndarray]]:
    """Write a large dense model as Keras 2 would; returns what was read of it, and its matrices."""
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    given = {"name": "x", "batch_input_shape": [None, SIZES[0]]}
    layers: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": given}]
    kernels = [random.normal(0, (2 / n) ** 0.5, (n, m)) for n, m in itertools.pairwise(SIZES)]
    with h5py.File(folder / "large.h5", "w") as file:
        file.attrs["layer_names"] = [f"fc{i}".encode() for i in range(len(kernels))]
        for i, kernel in enumerate(kernels):
            last = i + 1 == len(kernels)
            config = {"name": f"fc{i}", "units": kernel.shape[1], "activation": "linear" if last else "relu"}
            layers.append({"class_name": "Dense", "config": {**config, "use_bias": False}})
            group = file.create_group(f"fc{i}")
            group.attrs["weight_names"] = [f"fc{i}/kernel:0".encode()]
            group[f"fc{i}/kernel:0"] = kernel
    model = {"class_name": "Sequential", "config": {"name": "large", "layers": layers}}
    (folder / "large.json").write_text(json.dumps(model), encoding="utf-8")
    return kconvert.read_model(folder / "large.json", weights=folder / "large.h5"), kernels


def test_a_large_dense_model_is_quick(tmp_path: Path) -> None:
    started = time.process_time()
    spec, kernels = large(tmp_path)
    hls_model = convert(spec)
    converted = time.process_time()
    x = np.random.default_rng(1).normal(size=(1000, 16))
    answers = np.asarray(hls_model.predict(x, threads=1))
    predicted = time.process_time()
    expected = x
    for kernel in kernels[:-1]:
        expected = np.maximum(expected @ kernel, 0)
    assert np.abs(answers - expected @ kernels[-1]).max() < 0.1
    # about 1 s and 0.1 s; a slow machine may take ten times as long
    assert converted - started < 10
    assert predicted - converted < 2
