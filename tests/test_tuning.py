"""The search for the fewest bits, and the network without rounding that it compares with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType, tuning
from kconvert.converters.spec import ModelSpec
from kconvert.errors import InputError
from tests.light.handmade import write_h5
from tests.models import MODELS


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("model") / "handmade.h5"
    write_h5(path)
    return kconvert.read_model(path)


X = np.random.default_rng(5).normal(size=(400, 6, 6, 1))


@pytest.mark.parametrize("name", ["mlp", "mlp_batchnorm", "residual_two_inputs", "conv2d_net"])
def test_the_precise_network_is_the_float_one(name: str) -> None:
    pytest.importorskip("keras", minversion="3")
    model = MODELS[name]()
    precise = tuning.precise(kconvert.read_model(model))
    x = [np.random.default_rng(0).normal(size=(50, *v.shape)).astype(np.float32) for v in precise.inputs]
    answers = precise.predict(x)
    found = model.predict(x if len(x) > 1 else x[0], verbose=0)
    np.testing.assert_allclose(answers, found, atol=2e-5, rtol=1e-4)


def test_fewer_bits_within_the_tolerance(spec: ModelSpec) -> None:
    found = tuning.tune(spec, X, tolerance=0.03, budget=10)
    assert found.reference == 1
    assert found.score >= 0.97
    assert found.bits_after < found.bits_before / 2
    assert found.compiles <= 10 < found.evaluations, "weights need no compiling"
    hls_model = kconvert.convert_from_keras_model(spec, found.config)
    hls_model.compile()
    wide = tuning.precise(spec).predict(X)
    assert np.mean(np.argmax(hls_model.predict(X), 1) == np.argmax(wide, 1)) == found.score
    types = {(row["layer"], row["role"]): row["after"] for row in found.table}
    assert set(types) == {
        *(("image", "result"), ("conv", "weight"), ("conv", "bias"), ("conv_relu", "result")),
        *(("output", "weight"), ("output", "bias")),
    }
    assert types["conv_relu", "result"].startswith("ap_ufixed"), "what comes out of a ReLU needs no sign"
    for layer, role in types:
        assert str(next(n for n in hls_model if n.layer == layer).typed(role)) == types[layer, role]


def test_it_is_the_same_every_time_and_keeps_other_settings(spec: ModelSpec) -> None:
    config = {
        "Model": {"Precision": "fixed<20,8>", "ReuseFactor": 2},
        "LayerName": {"output": {"Strategy": "Resource", "Precision": {"accum": "fixed<24,10>"}}},
    }
    one, two = (tuning.tune(spec, X, config=config, tolerance=0.05, budget=6) for _ in range(2))
    assert one == two
    assert one.config["Model"] == config["Model"]
    assert one.config["LayerName"]["output"]["Strategy"] == "Resource"
    assert one.config["LayerName"]["output"]["Precision"]["accum"] == "fixed<24,10>"
    assert config["LayerName"]["output"]["Precision"] == {"accum": "fixed<24,10>"}, "the caller's is left alone"
    assert {row["bits_before"] for row in one.table} == {20}


@pytest.mark.parametrize("metric", ["mae", "accuracy", "auc"])
def test_metrics_with_a_truth(spec: ModelSpec, metric: str) -> None:
    wide = tuning.precise(spec).predict(X)
    truth = wide if metric == "mae" else np.argmax(wide, axis=1)
    found = tuning.tune(spec, X, truth, metric=metric, tolerance=0.02, budget=6)
    assert found.reference == pytest.approx(0 if metric == "mae" else 1, abs=0.01)
    assert abs(found.score - found.reference) <= 0.02
    assert found.bits_after < found.bits_before
    if metric != "mae":
        one_hot = np.eye(4)[truth]
        assert tuning.tune(spec, X, one_hot, metric=metric, tolerance=0.02, budget=6) == found


def test_a_budget_ends_the_search(spec: ModelSpec) -> None:
    found = tuning.tune(spec, X, tolerance=0.001, budget=4)
    assert (found.compiles, found.complete) == (4, False)
    assert found.score >= 0.999


def test_types_that_quantizers_chose_stay() -> None:
    pytest.importorskip("qkeras")
    from tests.qkeras.nets import build, randomise

    model = build(3)
    randomise(model, 0)
    spec = kconvert.read_model(model)
    before = kconvert.convert_from_keras_model(spec)
    x = np.random.default_rng(0).normal(size=(64, *before.inputs[0].shape))
    found = tuning.tune(spec, x, metric="mae", tolerance=0.1, budget=10)
    after = {n.name: n for n in kconvert.convert_from_keras_model(spec, found.config)}
    for node in before:
        for role in node.preset:
            assert after[node.name].typed(role) == node.typed(role)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "f1"}, "unknown metric 'f1'"),
        ({"metric": "auc"}, "'auc' needs the truth"),
        ({"y": [1]}, "'agreement' compares with the network itself"),
        ({"metric": "accuracy", "y": [1, 2]}, "y has 2 samples, X 400"),
        ({"metric": "accuracy", "y": np.zeros((400, 3))}, r"y has shape \(400, 3\)"),
        ({"metric": "auc", "y": np.zeros(400)}, "one class only|no ROC curve"),
        ({"metric": "accuracy", "y": np.full(400, 99)}, "y holds 99, but the classes have the numbers 0 to "),
        ({"metric": "mae", "y": np.full(400, np.nan)}, "y holds something else than finite numbers"),
        ({"metric": "accuracy", "y": ["a"] * 400}, "y holds something else than finite numbers"),
        ({"tolerance": -1}, "tolerance=-1"),
        ({"budget": 2}, "at least 4 designs"),
    ],
)
def test_bad_arguments(spec: ModelSpec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tuning.tune(spec, X, **options)


def test_a_tolerance_that_no_width_meets(spec: ModelSpec) -> None:
    with pytest.raises(InputError, match=r"not even 32 bits everywhere keep mae within 1e-15"):
        tuning.tune(spec, X[:50], metric="mae", tolerance=1e-15)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.3, 0.5, 0.75, 1.0, 1.2, 3.99, 4.0, 1e-6, 1000.0])
def test_integer_bits_hold_the_values(value: float, signed: bool) -> None:
    values = np.array([value, -value if signed else 0])
    integer = tuning.integer_bits(values, signed)
    kind = FixedType(integer + 40, integer, signed)
    assert kind.max >= value - kind.step
    narrower = FixedType(integer + 39, integer - 1, signed)
    assert narrower.max < value


def test_the_most_negative_value_needs_no_bit_more() -> None:
    assert tuning.integer_bits(np.array([-1.0, 0.9]), True) == 1
    assert tuning.integer_bits(np.zeros(3), True) == 1
