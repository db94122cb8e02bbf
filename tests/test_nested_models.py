"""Nested models: nested twice, called twice, sharing layers with each other; live and from every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.profiling import get_ymodel_keras
from tests.layers.common import as_list, assert_exact, convert, inputs_of, keras_answers
from tests.models import randomise


def nested(keras: Any) -> Any:
    """A Dense layer in three models, one of them inside another, all of them called several times."""
    layers = keras.layers
    shared = layers.Dense(6, name="shared")
    x = layers.Input((6,), name="inner_x")
    inner = keras.Model(x, [shared(x), layers.Add(name="sum")([layers.ReLU(name="relu")(x), x])], name="inner")
    head = keras.Sequential(
        [layers.Input((6,)), layers.Dense(6, activation="relu", name="fc"), layers.BatchNormalization(name="bn")],
        name="head",
    )
    x, y = layers.Input((6,), name="outer_x"), layers.Input((6,), name="outer_y")
    first, second = inner(x)
    outer = keras.Model([x, y], [layers.Add(name="sum")([first, shared(y)]), second, head(y)], name="outer")
    x, y = layers.Input((6,), name="x"), layers.Input((6,), name="y")
    once = outer([x, y])
    twice = outer([y, once[0]])
    tail = keras.Sequential([layers.Input((6,)), layers.Dense(6, name="fc")], name="tail")
    outputs = [*once, *twice, tail(x), tail(tail(y)), inner(y)[1], shared(x)]
    return randomise(keras.Model([x, y], outputs, name="nested"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_nested_models_and_shared_layers(package: str, tmp_path: Path) -> None:
    model = nested(pytest.importorskip(package))
    live = convert(model)
    x = [np.clip(a, -2, 2) for a in inputs_of(live)]
    for ours, theirs in zip(assert_exact(live, x), keras_answers(model, x), strict=True):
        assert np.abs(ours - theirs).max() < 2**-8
    sources: list[Any] = [tmp_path / "model.keras", tmp_path / "model.h5"]
    for path in sources:
        model.save(path)
    (tmp_path / "model.json").write_text(model.to_json(), encoding="utf-8")
    model.save_weights(tmp_path / "model.weights.h5")
    sources.append(kconvert.read_model(tmp_path / "model.json", weights=tmp_path / "model.weights.h5"))
    for source in sources:
        for one, other in zip(as_list(live.predict(x)), as_list(convert(source).predict(x)), strict=True):
            assert np.array_equal(one, other)


def test_keras_computes_every_layer_of_nested_models_for_a_comparison() -> None:
    model = nested(pytest.importorskip("keras"))
    hls_model = convert(model)
    x = [np.clip(a, -2, 2) for a in inputs_of(hls_model)]
    ours, theirs = hls_model.trace(x), get_ymodel_keras(model, x)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() < 2**-8, name
