"""Models of QKeras 0.9 on Keras 2; ``make test-legacy`` makes the environment they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from tests.qkeras.nets import Choice, build, choices, samples
from tests.qkeras.test_exactness import is_exact

pytestmark = pytest.mark.skipif(
    os.environ.get("TF_USE_LEGACY_KERAS") != "1", reason="needs QKeras 0.9 on Keras 2: make test-legacy"
)


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("tf_keras")


def test_random_networks_answer_as_keras_2_does(keras: Any) -> None:
    exact = sum(is_exact(choice, build(choice, keras)) for choice in choices(40))
    assert exact > 10


def test_a_saved_model_is_the_live_one(keras: Any, tmp_path: Path) -> None:
    model = build(Choice(3, 6, 1, 1, "conv2d", 3), keras)
    model.save(tmp_path / "model.h5")
    x = samples(model.input_shape[1:], 0)[:-2]
    answers = []
    for source in (model, tmp_path / "model.h5"):
        hls_model = kconvert.convert_from_keras_model(source)
        hls_model.compile()
        answers.append(hls_model.predict(x))
    assert np.array_equal(*answers)


def test_the_outputs_of_keras_2_layers_have_the_keys_of_trace(keras: Any) -> None:
    model = build(Choice(5, 6, 1, 1, "dense", 3), keras)
    hls_model = kconvert.convert_from_keras_model(model)
    hls_model.compile()
    x = samples(model.input_shape[1:], 0)[:-2]
    assert list(kconvert.profiling.get_ymodel_keras(model, x)) == list(hls_model.trace(x))
