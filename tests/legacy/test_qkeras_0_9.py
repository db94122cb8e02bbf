"""Models of QKeras 0.9 on Keras 2; ``make test-legacy`` makes the environment they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from tests.qkeras.nets import WEIGHTS_PER_ARCHITECTURE, build, choices, randomise, samples
from tests.qkeras.test_exactness import CHUNK, run

COUNT = int(os.environ.get("KCONVERT_EXACTNESS", "160"))

pytestmark = pytest.mark.skipif(
    os.environ.get("TF_USE_LEGACY_KERAS") != "1", reason="needs QKeras 0.9 on Keras 2: make test-legacy"
)


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("tf_keras")


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_random_networks_answer_as_the_quantised_model(keras: Any, first: int, record_property: Any) -> None:
    found = run(choices(COUNT)[first : first + CHUNK], keras)
    for name, value in found.items():
        record_property(name, value)
    assert found["equal to Keras"] > 0


def _model(architecture: int, keras: Any) -> Any:
    model = build(architecture, keras)
    randomise(model, architecture * WEIGHTS_PER_ARCHITECTURE)
    return model


@pytest.mark.parametrize("architecture", [0, 2, 5])  # without quantized_relu's is_quantized_clip, which QKeras forgets
def test_a_saved_model_is_the_live_one(keras: Any, architecture: int, tmp_path: Path) -> None:
    model = _model(architecture, keras)
    model.save(tmp_path / "model.h5")
    x = samples(model.input_shape[1:], 0)[:-2]
    answers = []
    for source in (model, tmp_path / "model.h5"):
        hls_model = kconvert.convert_from_keras_model(source)
        hls_model.compile()
        answers.append(hls_model.predict(x))
    assert np.array_equal(*answers)


def test_the_outputs_of_keras_2_layers_have_the_keys_of_trace(keras: Any) -> None:
    model = _model(0, keras)
    hls_model = kconvert.convert_from_keras_model(model)
    hls_model.compile()
    x = samples(model.input_shape[1:], 0)[:-2]
    assert list(kconvert.profiling.get_ymodel_keras(model, x)) == list(hls_model.trace(x))
