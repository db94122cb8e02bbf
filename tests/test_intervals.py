"""What compile says of types that wrap: whenever it can be shown with an input, and never when it is not so."""

from __future__ import annotations

import re
import time
import warnings
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel, intervals
from kconvert.errors import PrecisionWarning
from tests.models import MODELS, conv2d_net, mlp, randomise

PLAIN = "ap_fixed<16,6>"


def compiled(model: Any, config: Any, **options: Any) -> tuple[HLSModel, list[str]]:
    """Return the model and the lines of the warnings of compile alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hls_model = kconvert.convert_from_keras_model(model, config, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hls_model.compile()
    assert all(w.category is PrecisionWarning and w.filename == __file__ for w in caught)
    return hls_model, [line for w in caught for line in str(w.message).split("\n")]


def about(lines: list[str]) -> set[tuple[str, str]]:
    found = [re.match(r"layer '(.+?)': (\w+) reaches", line) for line in lines]
    assert all(found)
    return {(m[1], m[2]) for m in found if m}


@pytest.fixture(scope="module")
def dense() -> Any:
    """Sums from -7 to 5 for inputs from -1 to 1, if those were all there are."""
    import keras

    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="fc")])
    model.layers[-1].set_weights([np.array([[1.0, 0.5], [-2.0, 0.5], [3.0, -0.5]]), np.array([-1.0, 0.0])])
    return model


def of_dense(accum: str, result: str = "auto") -> dict[str, Any]:
    layers = {"x": {"Precision": "ap_fixed<8,1>"}, "fc": {"Precision": {"accum": accum, "result": result}}}
    return {"LayerName": layers}


def test_the_reach_of_a_layer_is_told_exactly(dense: Any) -> None:
    # 127/128 (1 + 3) + 2 - 1 at most, -127/128 2 - 1 - 3 - 1 at least
    _, (line,) = compiled(dense, of_dense("ap_fixed<12,3>"))
    assert line == (
        "layer 'fc': accum reaches [-6.98438, 4.96875] for inputs within their type, and ap_fixed<12,3> wraps outside "
        "of [-4, 3.99805]; 4 integer bits hold all that is possible, and a mode such as AP_SAT limits the damage: "
        "LayerName → fc → Precision → accum"
    )
    assert not compiled(dense, of_dense("ap_fixed<13,4>"))[1], "the advice is taken"
    assert not compiled(dense, of_dense("ap_fixed<12,3,AP_RND,AP_SAT>"))[1], "to saturate is a choice"
    _, lines = compiled(dense, of_dense("auto", "ap_fixed<12,3>"))
    assert about(lines) == {("fc", "result")}


def test_only_what_is_reached_counts(dense: Any) -> None:
    """The operands' types alone would ask for more bits than these weights do."""
    assert not compiled(dense, of_dense("ap_fixed<12,4>"))[1]
    narrow = {"x": {"Precision": "ap_ufixed<8,-1>"}, "fc": {"Precision": {"accum": "ap_fixed<12,3>"}}}
    assert not compiled(dense, {"LayerName": narrow})[1]


@pytest.mark.parametrize("name", ["mlp", "mlp_batchnorm", "conv1d_net", "conv2d_net", "multi_output", "nested_net"])
@pytest.mark.parametrize("granularity", [None, "name"])
def test_what_is_left_to_the_conversion_never_overflows(name: str, granularity: str | None) -> None:
    model = MODELS[name]()
    config = kconvert.config_from_keras_model(model, granularity=granularity) if granularity else None
    hls_model, lines = compiled(model, config)
    assert not lines
    assert not intervals.find_suspects(hls_model)


def network() -> Any:
    import keras

    layers = keras.layers
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = y = layers.MaxPooling2D(name="pool")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add(name="add")([x, y])
    x = layers.Conv2D(4, 2, groups=2, strides=2, activation="relu", name="grouped")(x)
    x = layers.Flatten(name="flat")(layers.BatchNormalization(name="norm")(x))
    return randomise(keras.Model(image, layers.Dense(5, name="fc")(layers.Dense(6, name="hidden")(x))))


@pytest.mark.parametrize("kind", ["ap_fixed<12,3>", "ap_fixed<8,5,AP_RND>"])
def test_nothing_is_told_that_a_check_of_values_does_not_find(kind: str) -> None:
    config = {"Model": {"Precision": {"default": "ap_fixed<12,3,AP_RND,AP_SAT>", "result": kind, "accum": kind}}}
    config["LayerName"] = {"image": {"Precision": {"result": "ap_fixed<8,1>"}}}
    hls_model, lines = compiled(network(), config)
    suspects = intervals.find_suspects(hls_model)
    samples = intervals._inputs_for(hls_model, suspects)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        wrapped = {(c.layer.split(" ")[0], c.role) for c in hls_model.check(samples) if c.wrapped}
    assert about(lines) <= wrapped
    if kind == "ap_fixed<12,3>":
        assert {("conv", "accum"), ("norm", "result")} <= about(lines), "also where intervals are no proof"


def test_it_costs_next_to_nothing() -> None:
    """A tenth of what compiling costs, at most, also where types are suspected."""
    hls_model, lines = compiled(conv2d_net(), {"Model": {"Precision": {"default": PLAIN, "result": "ap_fixed<16,2>"}}})
    assert lines
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        intervals.warn_of_overflow(hls_model, hls_model.library)
    assert time.process_time() - start < 0.5


def test_streams_and_several_inputs() -> None:
    import keras

    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], keras.layers.Add(name="sum")([a, b]))
    config = {"LayerName": {"sum": {"Precision": "ap_fixed<16,6>"}}}
    for io_type in ("io_parallel", "io_stream"):
        assert about(compiled(model, config, io_type=io_type)[1]) == {("sum", "result")}
    assert not compiled(model, {"LayerName": {"sum": {"Precision": "ap_fixed<17,7>"}}})[1]


def test_a_model_of_the_defaults_of_other_tools_is_told_of_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = {"Model": {"Precision": {"default": "ap_fixed<16,6,AP_TRN,AP_WRAP>", "result": PLAIN, "accum": PLAIN}}}
        kconvert.convert_from_keras_model(mlp(), config).compile()
    assert sum(w.category is PrecisionWarning for w in caught) == 1
