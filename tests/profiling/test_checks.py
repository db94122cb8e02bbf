"""What types do to values, counted, and the settings that mend it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import InputError
from kconvert.profiling import Check, Checks, checks
from kconvert.types import FixedType
from tests.models import MODELS, randomise

WIDE = "ap_fixed<24,12>"


def network(*layers: Any, shape: tuple[int, ...] = (2,)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape, name="x"), *layers])


def dense(kernel: Any, bias: Any, **options: Any) -> Any:
    """A model of one dense layer ``fc`` with the weights given."""
    import keras

    kernel = np.asarray(kernel, dtype=np.float32)
    model = network(keras.layers.Dense(kernel.shape[1], name="fc", **options), shape=kernel.shape[:1])
    model.set_weights([kernel, np.asarray(bias, dtype=np.float32)])
    return model


def converted(model: Any, **precision: Mapping[str, str]) -> kconvert.HLSModel:
    """Convert with precisions by layer; all else is wide."""
    config = {
        "Model": {"Precision": WIDE},
        "LayerName": {name: {"Precision": dict(roles)} for name, roles in precision.items()},
    }
    return kconvert.convert_from_keras_model(model, config)


def of(found: Checks, layer: str, role: str = "result") -> Check:
    (check,) = [c for c in found if (c.layer, c.role) == (layer, role)]
    return check


def test_values_that_wrap_or_saturate() -> None:
    x = np.array([[1.0, 3.0], [-5.0, 7.5], [-4.0, 0.25]])  # ap_fixed<.,3> holds -4 to below 4
    model = dense(np.eye(2), np.zeros(2))
    for modes, field in (("", "wrapped"), (",AP_RND,AP_SAT", "saturated")):
        hls_model = converted(model, fc={"result": f"ap_fixed<8,3{modes}>"})
        found = hls_model.check(x)
        worst = found[0]
        assert (worst.layer, worst.role, worst.values) == ("fc", "result", 6)
        counts = {"wrapped": worst.wrapped, "saturated": worst.saturated}
        assert counts == {"wrapped": 0, "saturated": 0, field: 2}
        assert worst.advice == f"LayerName → fc → Precision → result: ap_fixed<9,4{modes}>"
        assert found.damaged == [worst]


def test_values_that_become_zero() -> None:
    x = np.array([[0.5, 0.0], [0.125, -0.25], [0.0625, 0.01171875]])
    found = checks(converted(dense(np.eye(2), np.zeros(2)), fc={"result": "ap_fixed<6,3>"}), x)  # steps of 1/8
    worst = found[0]
    assert (worst.layer, worst.underflowed) == ("fc", 2)  # 1/16 and 3/256; nothing is lost of 0
    assert str(worst.change) == "ap_fixed<10,3>"  # steps of 1/128: the first that keeps 3/256 from zero


def test_truncated_negative_values_are_not_zero() -> None:
    x = np.array([[-0.01, -0.02]])
    assert (
        of(checks(converted(dense(np.eye(2), np.zeros(2)), fc={"result": "ap_fixed<6,3>"}), x), "fc").underflowed == 0
    )


def test_idle_bits_and_constants() -> None:
    x = np.array([[1.5, 1.0], [-1.0, 1.0], [0.5, 1.0]])
    found = checks(converted(dense(np.eye(2), np.zeros(2)), fc={"result": "ap_fixed<16,6>"}), x)
    check = of(found, "fc")
    assert (check.unused_integer_bits, check.unused_fraction_bits) == (4, 9)  # -1 to 1.5 in halves: ap_fixed<3,2>
    assert check.constant_outputs == 1
    assert str(check.change) == "ap_fixed<3,2>"
    assert not check.damaged
    weight = of(found, "fc", "weight")
    assert (weight.unused_integer_bits, weight.unused_fraction_bits, weight.constant_outputs) == (10, 12, 0)


def test_weights_and_inputs_are_values_too() -> None:
    model = dense([[1.0, 0.001], [100.0, -3.0]], [0.5, 5.0])
    hls_model = converted(model, x={"result": "ap_fixed<6,4>"}, fc={"weight": "ap_fixed<8,3,AP_RND,AP_SAT>"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the table says it
        found = checks(hls_model, np.array([[9.0, 1.0], [0.1, 0.0]]))
    assert (of(found, "x").wrapped, of(found, "x").underflowed) == (1, 1)
    weight = of(found, "fc", "weight")
    assert (weight.saturated, weight.underflowed, weight.values) == (1, 1, 4)
    assert of(found, "fc", "bias").wrapped == 0


def accumulating(kind: str) -> tuple[kconvert.HLSModel, np.ndarray]:
    """Sums of four products that pass 4 on the way or at the end, in an accumulator of -4 to 4."""
    model = dense(np.ones((4, 1)), [0.0])
    x = np.array([[1.0, 1, 1, 0.5], [3, 3, -3, -1], [3, 3, 3, 3], [0, 0, 0, 1]])
    return converted(model, fc={"accum": kind, "result": "ap_fixed<12,6>"}), x


def test_accumulator_that_wraps() -> None:
    """A sum that leaves the range and comes back is right: arithmetic modulo a power of two."""
    found = checks(*accumulating("ap_fixed<8,3>"))
    accum = of(found, "fc", "accum")
    assert (accum.wrapped, accum.saturated, accum.values) == (1, 0, 4)
    assert found[0] == accum
    assert of(found, "fc").wrapped == 0


def test_accumulator_that_saturates() -> None:
    """Here the sum that comes back is wrong too."""
    accum = of(checks(*accumulating("ap_fixed<8,3,AP_TRN,AP_SAT>")), "fc", "accum")
    assert (accum.wrapped, accum.saturated) == (0, 2)


def test_accumulator_whose_result_has_its_type() -> None:
    hls_model = converted(dense(np.ones((4, 1)), [0.0]), fc={"accum": "ap_fixed<8,3>", "result": "auto"})
    found = checks(hls_model, np.array([[3.0, 3, 3, 3], [1, 0, 0, 0]]))
    assert of(found, "fc", "accum").wrapped == 1


def test_lossless_accumulators_have_no_row() -> None:
    found = checks(converted(dense(np.eye(2), np.zeros(2))), np.ones((2, 2)))
    assert {c.role for c in found} == {"result", "weight", "bias"}


def test_layers_are_looked_at_one_by_one() -> None:
    """A layer is given what it gets in hardware: what was lost before it is not counted again."""
    import keras

    model = network(keras.layers.Dense(2, name="one"), keras.layers.Dense(2, name="two"))
    model.set_weights([np.eye(2), np.zeros(2)] * 2)
    hls_model = converted(model, one={"result": "ap_fixed<8,3>"}, two={"result": "ap_fixed<8,4>"})
    found = checks(hls_model, np.array([[9.0, 0.5]]))  # 9 wraps to 1, which both hold
    assert (of(found, "one").wrapped, of(found, "two").wrapped) == (1, 0)


def test_a_mended_model_loses_nothing() -> None:
    model = dense([[1.0, 0.001], [3.0, -3.0]], [0.5, 5.0])
    config = {"LayerName": {"fc": {"Precision": "ap_fixed<6,3>"}, "x": {"Precision": {"result": "ap_fixed<6,2>"}}}}
    x = np.array([[1.5, -0.5], [2.5, 0.01]])
    before = copy.deepcopy(config)
    for _ in range(3):  # what is mended upstream shows what is lost further down
        found = checks(kconvert.convert_from_keras_model(model, config), x)
        if not found.damaged:
            break
        previous, config = config, found.mend(config)
        assert previous == before  # a copy
        before = copy.deepcopy(config)
    assert not found.damaged
    assert config["LayerName"]["fc"]["Precision"]["default"] == "ap_fixed<6,3>"


@pytest.mark.parametrize(("cell", "role"), [("SimpleRNN", "accum"), ("LSTM", "cell")])
def test_state_of_a_recurrent_layer(cell: str, role: str) -> None:
    import keras

    model = randomise(network(getattr(keras.layers, cell)(2, name="rnn"), shape=(4, 1)))
    x = np.random.default_rng(1).normal(size=(30, 4, 1)) * 4
    found = checks(converted(model, rnn={role: "ap_fixed<10,0>"}), x)
    assert of(found, "rnn", role).wrapped > 0
    assert of(found, "rnn", role).change is not None
    assert not any(c.wrapped for c in found if c.role == "state")  # tanh: within -1 and 1


def test_folded_layers_are_mended_where_their_type_is_chosen() -> None:
    import keras

    model = randomise(network(keras.layers.Dense(2, name="fc"), keras.layers.BatchNormalization(name="bn")))
    config = {"LayerName": {"bn": {"Precision": {"result": "ap_fixed<10,1>"}}}}
    found = checks(kconvert.convert_from_keras_model(model, config), np.array([[6.0, -6.0], [6, 6], [-6, 3]]))
    check = of(found, "fc + bn")
    assert check.wrapped > 0
    assert check.path == ("LayerName", "bn", "Precision", "result")
    again = kconvert.convert_from_keras_model(model, found.mend(config))
    assert again["fc"].output.names == ["bn"]
    assert again["fc"].result_type == check.change


def test_calls_of_one_layer_are_given_one_type() -> None:
    import keras

    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    shared = keras.layers.Dense(2, name="fc")
    model = keras.Model([a, b], keras.layers.Add(name="sum")([shared(a), shared(b)]))
    shared.set_weights([np.eye(2), np.zeros(2)])
    hls_model = converted(model, fc={"result": "ap_fixed<6,3>"})
    found = checks(hls_model, {"a": np.array([[9.0, 0.5]]), "b": np.array([[0.01171875, 0.5]])})
    first, second = of(found, "fc"), of(found, "fc:1")
    assert (first.wrapped, second.underflowed) == (1, 1)
    assert first.advice == second.advice == "LayerName → fc → Precision → result: ap_fixed<12,5>"


def test_a_quantizers_own_type_is_not_to_be_changed() -> None:
    qkeras = pytest.importorskip("qkeras")
    layer = qkeras.QDense(
        2, kernel_quantizer="quantized_bits(4,0,alpha=1)", bias_quantizer="quantized_bits(4,0,alpha=1)", name="q"
    )
    model = network(layer, qkeras.QActivation("quantized_relu(4,1)", name="act"))
    model.set_weights([np.array([[3.0, 0.5], [0.01, 0.25]]), np.zeros(2)])
    hls_model = kconvert.convert_from_keras_model(model)
    found = checks(hls_model, np.array([[4.0, 8.0], [0.5, 0.25]]))
    weight, activation = of(found, "q", "weight"), of(found, "act")
    assert activation.saturated > 0
    for check in (weight, activation):
        assert check.demanded
        assert not check.damaged
        assert check.change is None
        assert "demands" in check.advice


def test_the_model_is_left_alone() -> None:
    model = MODELS["conv2d_net"]()
    hls_model = kconvert.convert_from_keras_model(model)
    hls_model.compile()
    x = np.random.default_rng(0).normal(size=(40, 10, 10, 1))
    before, trace = str(hls_model), hls_model.trace(x)
    found = checks(hls_model, x)
    assert str(hls_model) == before
    assert all(np.array_equal(trace[name], array) for name, array in hls_model.trace(x).items())
    stored = {c.layer for c in found if c.role == "result"}
    assert {"image", "conv1 + bn1", "average", "output_softmax"} <= stored


def test_tables() -> None:
    found = checks(*accumulating("ap_fixed<8,3>"))
    rows = found.table
    assert [row["layer"] for row in rows] == [c.layer for c in found]
    assert rows[0]["wrapped"] == 1
    assert rows[0]["change"].startswith("LayerName → fc → Precision → accum: ")
    assert all(isinstance(value, str | int | None) for row in rows for value in row.values())
    lines = str(found).splitlines()
    assert lines[0].split()[:3] == ["layer", "role", "type"]
    assert len(lines) == len(found) + 2
    assert found._repr_html_().count("<tr>") == len(found) + 1
    assert found[0].type == FixedType.parse("ap_fixed<8,3>")


def test_samples_are_needed() -> None:
    hls_model = converted(dense(np.eye(2), np.zeros(2)))
    with pytest.raises(InputError, match="no samples"):
        checks(hls_model, np.empty((0, 2)))
    with pytest.raises(InputError, match="shape"):
        checks(hls_model, np.empty((3, 5)))


@pytest.mark.parametrize("width", [40, 62])
def test_sums_that_no_type_holds(width: int) -> None:
    kind = f"ap_fixed<{width},{width // 2}>"
    roles = dict.fromkeys(("weight", "bias", "accum", "result"), kind)
    model = dense(np.ones((16, 1)), np.zeros(1))
    config = {"Model": {"Precision": kind}, "LayerName": {"fc": {"Precision": roles}}}
    found = checks(kconvert.convert_from_keras_model(model, config), np.ones((4, 16)))
    assert found.damaged == []


def test_a_bias_that_a_quantizer_demands_gets_no_change_beside_its_alpha() -> None:
    """The sum before the alpha keeps a bias of zeros under the same setting."""
    qkeras = pytest.importorskip("qkeras")
    import keras

    layer = qkeras.QDense(
        3, kernel_quantizer="quantized_bits(4,0,alpha='auto')", bias_quantizer="quantized_bits(6,0,alpha=1)", name="fc"
    )
    model = randomise(keras.Sequential([keras.Input((4,), name="x"), layer]))
    hls_model = kconvert.convert_from_keras_model(model)
    found = hls_model.check(np.random.default_rng(0).normal(size=(50, 4)))
    biases = [check for check in found if check.role == "bias"]
    assert len(biases) == 2
    assert all(check.change is None for check in biases)
