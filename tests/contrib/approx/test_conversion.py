"""Approximate layers become firmware that multiplies as their multipliers do, to the last bit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import ModelSpec
from kconvert.errors import ConfigError, ModelError, UnsupportedLayerError
from kconvert.firmware import Firmware
from kconvert.layers import Dense
from kconvert_contrib.approx import ApproxError
from kconvert_contrib.approx.conversion import trusting
from kconvert_contrib.approx.families import library
from kconvert_contrib.approx.multipliers import ApproximateMultiplier
from kconvert_contrib.approx.nodes import ApproxDense, header_of, struct_of
from tests.contrib.approx import specs
from tests.contrib.approx.specs import MASKED, ODD, approx, kernel
from tests.test_project import run_test_bench

SHAPE = (6, 6, 3)
CONV, DEPTHWISE, HIDDEN, LAST = (
    kernel(3, 3, 3, 4),
    kernel(3, 3, 4, 2, seed=1),
    kernel(32, 7, seed=2),
    kernel(7, 3, seed=3),
)
BIAS = np.array([0.5, -0.25, 3.0, 0.125, 1.0, 0.0, -2.0], np.float32)


def converted(
    spec: ModelSpec, config: dict[str, Any] | None = None, folder: Path | str = "unused", **options: Any
) -> kconvert.HLSModel:
    hls_model = kconvert.convert_from_keras_model(spec, config, output_dir=folder, **options)
    hls_model.compile()
    return hls_model


def image_network() -> ModelSpec:
    """All three kinds of layers, of three kinds of products: by table, by arithmetic, exact."""
    window = {"kernel_size": [3, 3], "strides": [1, 1], "padding": "same"}
    return specs.model(
        approx("Conv2D", "conv", "x", CONV, ODD, **window),
        specs.layer("ReLU", "relu", "conv"),
        approx("DepthwiseConv2D", "depthwise", "relu", DEPTHWISE, MASKED, **window),
        specs.layer("MaxPooling2D", "pool", "depthwise", {"pool_size": [3, 3], "strides": [3, 3]}),
        specs.layer("Flatten", "flat", "pool"),
        approx("Dense", "hidden", "flat", HIDDEN, ODD, bias=BIAS),
        approx("Dense", "last", "hidden", LAST, None, mode="quantised"),
        shape=SHAPE,
    )


def pooled_network() -> ModelSpec:
    """A mean of values so fine that 1 / 3 needs more bits than a double has."""
    normalised = [np.array(row, np.float32) / 7 for row in ([5, 3, 4, 9], [1, 2, 3, 4], [0, 1, 0, 2], [1, 2, 4, 1])]
    return specs.model(
        approx("Conv2D", "conv", "x", CONV, MASKED, kernel_size=[3, 3], strides=[1, 1], padding="same"),
        specs.layer("BatchNormalization", "norm", "conv", {"epsilon": 1e-3}, *normalised),
        specs.layer("AveragePooling2D", "mean", "norm", {"pool_size": [3, 3], "strides": [3, 3]}),
        shape=SHAPE,
    )


def answers(x: np.ndarray) -> np.ndarray:
    """What the network means."""
    x = np.maximum(specs.conv(x, CONV, ODD.table, pad=1), 0)
    x = specs.depthwise(x, DEPTHWISE, MASKED.table, pad=1)
    x = x.reshape(-1, 2, 3, 2, 3, 8).max(axis=(2, 4)).reshape(-1, 32)
    return specs.dense(specs.dense(x, HIDDEN, ODD.table) + BIAS, LAST)


def images(n: int = 50) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 4, (n, *SHAPE)).astype(np.float32)  # some beyond the codes


@pytest.fixture(scope="module")
def image_model() -> kconvert.HLSModel:
    with trusting([MASKED]):
        return converted(image_network())


def test_predict_is_what_the_multipliers_make(image_model: kconvert.HLSModel) -> None:
    x = images()
    found, expected = image_model.predict(x), answers(x)
    assert np.array_equal(found, expected)
    assert np.ptp(expected) > 10
    trace = image_model.trace(x)
    assert np.array_equal(trace["conv"], specs.conv(x, CONV, ODD.table, pad=1))
    assert not np.array_equal(trace["conv"], specs.conv(x, CONV, pad=1))


def test_exact_layers_are_ordinary_ones(image_model: kconvert.HLSModel) -> None:
    nodes = {node.name: node for node in image_model.nodes}
    last = nodes["last"]
    assert type(last) is Dense
    assert last.policy == "nnet::product::exact"
    exact = approx("Dense", "only", "x", LAST, ApproximateMultiplier("null", 1.0, np.zeros((256, 256), int)))
    (node,) = (n for n in kconvert.convert_from_keras_model(specs.model(exact, shape=(7,))).nodes if n.name == "only")
    assert type(node) is Dense


def test_the_project_holds_every_multiplier_once_under_a_safe_name(
    image_model: kconvert.HLSModel, tmp_path: Path
) -> None:
    with trusting([MASKED]):
        project = kconvert.convert_from_keras_model(image_network(), output_dir=tmp_path / "prj").write()
    headers = sorted(file.name for file in (project / "firmware" / "multipliers").iterdir())
    assert [re.sub(r"_[0-9a-f]{8}\.h$", "", name) for name in headers] == ["approx_layer_1_odd_name", "approx_masked"]
    assert (project / "firmware" / "multipliers" / headers[1]).read_text(encoding="utf-8") == header_of(MASKED)
    text = "".join(file.read_text(encoding="utf-8") for file in project.rglob("*.h"))
    assert MASKED.cpp is not None
    assert MASKED.cpp.strip() in text
    assert ODD.name not in text
    for header in headers:
        assert text.count(f'#include "multipliers/{header}"') == 1


def test_the_source_for_synthesis_computes_the_same(tmp_path: Path) -> None:
    x = images(20)
    with trusting([MASKED]):
        hls_model = kconvert.convert_from_keras_model(image_network(), output_dir=tmp_path / "prj", input_data_tb=x)
    assert np.array_equal(run_test_bench(hls_model.write(), len(x)), answers(x))
    hls_model = converted(pooled_network(), folder=tmp_path / "pooled", input_data_tb=x)
    assert hls_model.predict(x).std() > 0.1
    found = run_test_bench(hls_model.write(), len(x))
    np.testing.assert_array_equal(found, hls_model.predict(x).reshape(len(x), -1))


def test_every_product_of_all_families() -> None:
    families = {member.name.rstrip("_0123456789"): member for member in library()}  # the last, strongest of each
    assert len(families) > 8
    members = [*families.values(), ODD]
    codes = np.arange(-127, 128)
    weight = (codes * specs.WEIGHT_STEP)[np.newaxis]
    layers = [approx("Dense", f"layer{k}", "x", weight, member) for k, member in enumerate(members)]
    outputs = tuple(known.name for known in layers)
    x = (codes * specs.INPUT_STEP)[:, np.newaxis]
    found = converted(specs.model(*layers, shape=(1,), outputs=outputs)).predict(x)
    for member, products in zip(members, found, strict=True):
        expected = member.table[1:, 1:] * (specs.INPUT_STEP * specs.WEIGHT_STEP)
        assert np.array_equal(products, expected), member.name


def test_a_shared_multiplier_of_block_memory_sums_the_same() -> None:
    weight = kernel(12, 6)
    spec = specs.model(approx("Dense", "only", "x", weight, ODD), shape=(12,))
    config = {"LayerName": {"only": {"ReuseFactor": 8, "Strategy": "Resource"}}}
    x = np.random.default_rng(0).normal(0, 3, (30, 12))
    assert np.array_equal(converted(spec, config).predict(x), specs.dense(x, weight, ODD.table))


# ***** what a file may say *****


def node_of(spec: ModelSpec) -> Any:
    return next(n for n in kconvert.convert_from_keras_model(spec).nodes if isinstance(n, ApproxDense))


def test_the_source_in_a_file_is_never_used() -> None:
    evil = replace(MASKED, cpp='    return system("true");\n')
    node = node_of(specs.model(approx("Dense", "only", "x", LAST, evil), shape=(7,)))
    assert node.multiplier.cpp is None
    assert np.array_equal(node.multiplier.table, MASKED.table)


def test_a_member_of_the_library_keeps_its_own_source_and_one_in_its_name_does_not() -> None:
    own = next(member for member in library() if not member.exact)
    evil = replace(own, cpp="    return 0;\n")
    node = node_of(specs.model(approx("Dense", "only", "x", LAST, evil), shape=(7,)))
    assert node.multiplier is own
    table = own.table.copy()
    table[5, 5] += 1
    tampered = ApproximateMultiplier.from_table(own.name, 1.0, table, own.cpp)
    node = node_of(specs.model(approx("Dense", "only", "x", LAST, tampered), shape=(7,)))
    assert node.multiplier.cpp is None
    assert np.array_equal(node.multiplier.table, table)


def test_two_multipliers_of_one_name_have_headers_of_their_own() -> None:
    other = ApproximateMultiplier.from_table(ODD.name, 1.0, ODD.table + 1)
    assert struct_of(other) != struct_of(ODD)
    layers = [approx("Dense", f"layer{k}", "x", LAST, one) for k, one in enumerate((ODD, other))]
    hls_model = kconvert.convert_from_keras_model(specs.model(*layers, shape=(7,), outputs=("layer0", "layer1")))
    assert len(Firmware(hls_model).headers) == 2


def test_a_source_that_computes_something_else_than_its_table_is_refused() -> None:
    wrong = replace(MASKED, cpp="    return x * y;\n")
    with (
        pytest.raises(ApproxError, match="'masked': its C\\+\\+ makes other products than its table"),
        trusting([wrong]),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "magic"}, ModelError, "mode 'magic' is none of"),
        ({"multiplier": {"metric": 1.0}}, ModelError, "a multiplier is a name, a metric and a table"),
        ({"multiplier": "drum"}, ModelError, "a multiplier is a name, a metric and a table"),
        ({"multiplier": {"name": "a", "metric": "b"}}, ModelError, "layer 'only'"),
        ({"use_bias": True}, ModelError, "layer 'only'"),
        ({"activation": "magic"}, UnsupportedLayerError, "activation 'magic'"),
    ],
)
def test_a_config_that_makes_no_sense_names_the_layer(change: dict[str, Any], error: type, message: str) -> None:
    made = approx("Dense", "only", "x", LAST, ODD)
    with pytest.raises(error, match=message):
        kconvert.convert_from_keras_model(specs.model(replace(made, config={**made.config, **change}), shape=(7,)))


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (1, 0.3, UnsupportedLayerError, "input scale 0.3 is no power of two"),
        (2, 0.0, UnsupportedLayerError, "weight scale 0 is no power of two"),
        (2, [0.5, 0.25], ModelError, "one weight scale, not 2"),
        (4, np.zeros((2, 2)), ModelError, "expected whole numbers of shape"),
        (4, np.full((256, 256), 40_000), ModelError, "fit in 16 bits"),
    ],
)
def test_weights_that_make_no_sense_name_the_layer(index: int, value: Any, error: type, message: str) -> None:
    made = approx("Dense", "only", "x", LAST, ODD)
    arrays = list(made.weights)
    arrays[index] = np.asarray(value)
    with pytest.raises(error, match=message) as caught:
        kconvert.convert_from_keras_model(specs.model(replace(made, weights=tuple(arrays)), shape=(7,)))
    assert "layer 'only'" in str(caught.value)


def test_a_layer_in_floating_point_is_the_ordinary_one() -> None:
    spec = specs.model(approx("Dense", "only", "x", LAST, None, mode="float", bias=BIAS[:3]), shape=(7,))
    nodes = kconvert.convert_from_keras_model(spec).nodes
    assert [type(node).__name__ for node in nodes] == ["Input", "Dense"]


# ***** types *****


def test_codes_of_another_width_are_refused() -> None:
    spec = specs.model(approx("Dense", "only", "x", LAST, ODD), shape=(7,))
    for place in ({"only": {"Precision": {"weight": "ap_fixed<6,1>"}}}, {"only_codes": {"Precision": "ap_fixed<9,4>"}}):
        with pytest.raises(ConfigError, match=r"layer 'only': its multiplier .* takes signed codes of 8 bits"):
            kconvert.convert_from_keras_model(spec, {"LayerName": place})


def test_an_input_is_rounded_once_unless_the_settings_say_otherwise() -> None:
    layers = (specs.layer("Flatten", "flat", "x"), approx("Dense", "only", "flat", LAST, ODD))
    spec = specs.model(*layers, shape=(1, 7))
    x = np.array([[2.0**-5 + 2.0**-20] + 6 * [3.0]]).reshape(1, 1, 7)  # just above half way between codes
    assert str(converted(spec).inputs[0].type).startswith("ap_fixed<8,4,AP_RND_CONV,AP_SAT_SYM>")
    assert np.array_equal(converted(spec).predict(x), specs.dense(x.reshape(1, 7), LAST, ODD.table))
    other = {"LayerName": {"x": {"Precision": {"result": "ap_fixed<12,6>"}}}}
    assert str(kconvert.convert_from_keras_model(spec, other).inputs[0].type) == "ap_fixed<12,6>"
    both = specs.model(*layers, specs.layer("ReLU", "relu", "x"), shape=(1, 7), outputs=("only", "relu"))
    assert str(kconvert.convert_from_keras_model(both).inputs[0].type).startswith("ap_fixed<16,6")


def test_saturation_of_inputs_is_part_of_the_model(recwarn: pytest.WarningsRecorder) -> None:
    spec = specs.model(approx("Dense", "only", "x", LAST, ODD), shape=(7,))
    x = np.full((1, 7), 100.0)
    assert np.array_equal(converted(spec).predict(x), specs.dense(x, LAST, ODD.table))
    assert not recwarn.list


def test_the_multiplier_is_named_in_the_printed_graph(image_model: kconvert.HLSModel) -> None:
    assert f"products by {ODD.name}" in str(image_model)
