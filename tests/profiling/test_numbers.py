"""Tables of differences and ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import InputError, ModelError
from kconvert.profiling import compare_table, get_ymodel_keras, numerical_table
from tests.models import MODELS
from tests.profiling.test_keras_outputs import compiled, samples


@pytest.fixture(scope="module")
def net() -> tuple[Any, kconvert.HLSModel, Any]:
    model = MODELS["conv2d_net"]()
    return model, compiled(model), samples(model, 50)


def test_compare_table(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    rows = compare_table(model, hls_model, x)
    trace, keras = hls_model.trace(x), get_ymodel_keras(model, x)
    assert [row["layer"] for row in rows] == list(trace)
    for row in rows:
        difference = trace[row["layer"]] - keras[row["layer"]]
        assert row["max_abs_diff"] == np.abs(difference).max()
        assert row["rms_diff"] == pytest.approx(np.sqrt(np.mean(difference**2)))
        assert row["max_abs_keras"] == np.abs(keras[row["layer"]]).max()
        assert row["relative_norm"] == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(keras[row["layer"]]))
    by_name = {row["layer"]: row for row in rows}
    assert by_name["bn1"]["folded"] == "conv1"
    assert by_name["relu1"]["folded"] is None
    assert by_name["relu1"]["type"] == "ap_fixed<16,6,AP_RND,AP_SAT>"


def test_compare_follows_the_conversion_at_hand() -> None:
    """A type on the tensor in between keeps a batch normalisation from being folded: two tensors to compare."""
    model = MODELS["conv2d_net"]()
    config = {"LayerName": {"conv1": {"Precision": {"result": "ap_fixed<20,8>"}}}}
    hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    x = samples(model)
    rows = {row["layer"]: row for row in compare_table(model, hls_model, x)}
    assert list(rows) == list(hls_model.trace(x))
    assert rows["conv1"]["type"] == "ap_fixed<20,8>"
    assert rows["conv1"]["max_abs_diff"] < 0.01
    assert rows["bn1"]["folded"] is None


def test_compare_needs_the_same_network(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    import keras

    _, hls_model, x = net
    layers = keras.layers
    other = keras.Sequential([keras.Input((10, 10, 1), name="image"), layers.ZeroPadding2D(2, name="pad")])
    with pytest.raises(InputError, match=r"'pad' of the hls model has shape \(12, 12, 1\), the Keras model makes \(14"):
        compare_table(other, hls_model, x)
    named = keras.Sequential([keras.Input((10, 10, 1), name="image"), layers.ZeroPadding2D(1, name="padding")])
    with pytest.raises(InputError, match=r"'pad'.*has no such layer"):
        compare_table(named, hls_model, x)


def test_compare_compiles_and_needs_a_live_model() -> None:
    model = MODELS["mlp"]()
    hls_model = kconvert.convert_from_keras_model(model)
    assert not hls_model.compiled
    assert [row["layer"] for row in compare_table(model, hls_model, samples(model))] == list(hls_model.traced())
    assert hls_model.compiled
    with pytest.raises(ModelError, match="live"):
        compare_table("model.keras", hls_model, samples(model))


def test_no_samples(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    assert {row["max_abs_diff"] for row in compare_table(model, hls_model, x[:0])} == {0.0}


def test_numerical_table(net: tuple[Any, kconvert.HLSModel, Any]) -> None:
    model, hls_model, x = net
    rows = numerical_table(model, hls_model, x)
    keys = [(row["layer"], row["role"]) for row in rows if row["values"] == "fixed"]
    weights = [(n, r) for n in ("conv1", "conv2", "output") for r in ("weight", "bias")]
    assert keys == weights + [(n, "result") for n in ("image", *hls_model.trace(x))]
    row = next(r for r in rows if (r["layer"], r["values"]) == ("conv2_relu", "fixed"))
    values = hls_model.trace(x)["conv2_relu"]
    assert row["count"] == values.size
    assert row["zeros"] == np.sum(values == 0) > 0
    assert row["largest"] == pytest.approx(values.max())
    assert row["smallest"] == pytest.approx(values[values > 0].min())
    assert row["lower_quartile"] <= row["median"] <= row["upper_quartile"]


def test_weights_in_hardware_are_quantised() -> None:
    model = MODELS["mlp"]()
    config = kconvert.config_from_keras_model(model, default_precision="ap_fixed<4,1>")
    rows = numerical_table(hls_model=kconvert.convert_from_keras_model(model, config))
    for exact, fixed in zip(rows[::2], rows[1::2], strict=True):
        assert (exact["values"], fixed["values"]) == ("float", "fixed")
        assert exact["type"] == "ap_fixed<4,1,AP_RND,AP_SAT>"
        assert fixed["smallest"] >= 2**-3
        assert exact["largest"] == pytest.approx(fixed["largest"], abs=2**-4)
    assert sum(r["zeros"] for r in rows if r["values"] == "fixed") > sum(
        r["zeros"] for r in rows if r["values"] == "float"
    )


def test_keras_alone_has_no_types() -> None:
    model = MODELS["mlp"]()
    rows = numerical_table(model, X=samples(model))
    assert {row["values"] for row in rows} == {"float"}
    assert {row["type"] for row in rows} == {None}
    assert "fc1_relu" in {row["layer"] for row in rows}


def test_a_model_is_needed() -> None:
    with pytest.raises(InputError, match="hls_model= is a Sequential"):
        compare_table(MODELS["mlp"](), MODELS["mlp"](), np.zeros((1, 16)))
    with pytest.raises(InputError, match="model="):
        numerical_table()
    with pytest.raises(InputError, match="hls_model= is a str"):
        numerical_table(hls_model="prj")  # type: ignore[arg-type]
