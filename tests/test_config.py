"""The settings dictionary: making it, editing it, and every way in which it can be wrong."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import yaml

import kconvert
from kconvert import HLSModel
from kconvert.config import ProjectSettings
from kconvert.errors import ConfigError, PrecisionError
from tests.models import MODELS, conv2d_net, mlp, mlp_batchnorm, randomise

DEFAULT = "ap_fixed<16,6,AP_RND,AP_SAT>"


@pytest.fixture(scope="module")
def model() -> Any:
    return mlp()


def convert(model: Any, config: Any) -> HLSModel:
    return kconvert.convert_from_keras_model(model, config)


def test_model_granularity(model: Any) -> None:
    assert kconvert.config_from_keras_model(model) == {
        "Model": {"Precision": {"default": DEFAULT}, "ReuseFactor": 1, "Strategy": "Latency"}
    }


def test_type_granularity(model: Any) -> None:
    config = kconvert.config_from_keras_model(model, granularity="type")
    assert list(config["LayerType"]) == ["InputLayer", "Dense", "Activation"]
    # the results of fc1 and fc2 stay as wide as their accumulators because a ReLU follows; so do those of the last
    assert config["LayerType"]["Dense"] == {
        "Precision": {"weight": DEFAULT, "bias": DEFAULT, "accum": "auto", "result": "auto"},
        "ReuseFactor": 1,
        "Strategy": "Latency",
    }
    assert "result" not in config["LayerType"]["Activation"]["Precision"], "softmax and relu differ: nothing to say"


def test_name_granularity(model: Any) -> None:
    names = kconvert.config_from_keras_model(model, granularity="name", default_reuse_factor=4)["LayerName"]
    assert list(names) == ["jet_features", "fc1", "fc1_relu", "fc2", "fc2_relu", "output", "softmax"]
    assert names["jet_features"] == {"Precision": {"result": DEFAULT}}
    assert names["fc1_relu"] == {"Precision": {"result": DEFAULT}}
    assert names["fc1"] == {
        "Precision": {"weight": DEFAULT, "bias": DEFAULT, "accum": "auto", "result": "auto"},
        "ReuseFactor": 4,
        "Strategy": "Latency",
    }
    softmax = names["softmax"]
    assert softmax["exp_table_t"] == softmax["inv_table_t"] == "ap_fixed<18,8,AP_RND,AP_SAT>"
    assert (softmax["table_size"], softmax["Implementation"]) == (1024, "stable")


@pytest.mark.parametrize("granularity", ["model", "type", "name"])
@pytest.mark.parametrize("name", ["mlp", "mlp_batchnorm", "conv1d_net", "conv2d_net", "multi_output", "nested_net"])
def test_an_unedited_configuration_means_the_same_as_none(name: str, granularity: str) -> None:
    model = MODELS[name]()
    config = kconvert.config_from_keras_model(model, granularity=granularity)
    assert str(convert(model, config)) == str(convert(model, None))


@pytest.mark.parametrize("granularity", ["model", "type", "name"])
def test_it_goes_through_yaml_unchanged(granularity: str) -> None:
    config = kconvert.config_from_keras_model(conv2d_net(), granularity=granularity)
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_converting_leaves_the_dictionary_alone(model: Any) -> None:
    config = kconvert.config_from_keras_model(model, granularity="name")
    before = copy.deepcopy(config)
    convert(model, config)
    assert config == before


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("ap_fixed<16,6>", DEFAULT),
        ("fixed<12,4>", "ap_fixed<12,4,AP_RND,AP_SAT>"),
        ("ap_fixed<12,4,AP_TRN,AP_WRAP>", "ap_fixed<12,4>"),
        ("ap_fixed<12,4,AP_RND_CONV>", "ap_fixed<12,4,AP_RND_CONV,AP_WRAP>"),
    ],
)
def test_the_default_precision_rounds_and_saturates_unless_it_names_modes(model: Any, given: str, used: str) -> None:
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision=given)
    assert config["Model"]["Precision"]["default"] == used
    hls_model = convert(model, config)
    assert str(hls_model["fc1"].weight_type) == used
    assert str(hls_model.inputs[0].type) == used


# ---- an edit takes effect ----


def edited(model: Any, *path: str, value: Any) -> HLSModel:
    config = kconvert.config_from_keras_model(model, granularity="name")
    place = config["LayerName"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return convert(model, config)


@pytest.mark.parametrize("role", ["weight", "bias", "accum", "result"])
def test_a_precision_of_a_layer(model: Any, role: str) -> None:
    hls_model = edited(model, "fc1", "Precision", role, value="ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>")
    assert str(hls_model["fc1"].typed(role)) == "ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>"
    assert str(hls_model["fc2"].typed("weight")) == DEFAULT


def test_a_precision_changes_the_numbers() -> None:
    model = mlp()
    x = np.random.default_rng(0).normal(size=(10, 16))
    rough, fine = edited(model, "fc1", "Precision", "weight", value="ap_fixed<3,1>"), convert(model, None)
    rough.compile()
    fine.compile()
    assert np.abs(rough.predict(x) - fine.predict(x)).max() > 0.01


def test_other_settings_of_a_layer(model: Any) -> None:
    assert edited(model, "fc1", "ReuseFactor", value=8)["fc1"].reuse_factor == 8
    assert edited(model, "fc1", "Strategy", value="resource")["fc1"].strategy == "Resource"
    assert edited(model, "softmax", "table_size", value=256)["softmax"].table_size == 256
    assert edited(model, "softmax", "Implementation", value="argmax")["softmax"].implementation == "argmax"
    assert (
        str(edited(model, "softmax", "exp_table_t", value="ap_fixed<20,4>")["softmax"].exp_table_type)
        == "ap_fixed<20,4>"
    )
    assert edited(model, "softmax", "Trace", value=True)["softmax"].name == "softmax"


def test_the_particular_wins_over_the_general(model: Any) -> None:
    hls_model = convert(
        model,
        {
            "Model": {"Precision": "ap_fixed<10,4>", "ReuseFactor": 2},
            "LayerType": {"Dense": {"Precision": {"weight": "ap_fixed<8,2>"}, "ReuseFactor": 4}},
            "LayerName": {"fc2": {"Precision": {"weight": "ap_fixed<6,1>"}, "ReuseFactor": 16}},
        },
    )
    assert [str(hls_model[n].weight_type) for n in ("fc1", "fc2")] == ["ap_fixed<8,2>", "ap_fixed<6,1>"]
    assert [str(hls_model[n].bias_type) for n in ("fc1", "fc2")] == ["ap_fixed<10,4>"] * 2
    assert [hls_model[n].reuse_factor for n in ("fc1", "fc2")] == [4, 16]


def test_a_precision_without_a_role_is_for_parameters_and_results() -> None:
    model = mlp_batchnorm()
    hls_model = convert(
        model, {"LayerName": {"fc2": {"Precision": "ap_fixed<7,3>"}, "output": {"Precision": {"default": "auto"}}}}
    )
    fc2 = hls_model["fc2"]
    assert [str(t) for t in (fc2.weight_type, fc2.bias_type, fc2.result_type)] == ["ap_fixed<7,3>"] * 3
    assert fc2.accum_type.width > 7
    assert hls_model["output"].result_type == hls_model["output"].accum_type


def test_a_type_object_and_other_spellings_are_accepted(model: Any) -> None:
    kind = kconvert.FixedType(9, 3)
    hls_model = convert(model, {"LayerName": {"fc1": {"Precision": {"weight": kind, "bias": "fixed<9,3>"}}}})
    assert hls_model["fc1"].weight_type == hls_model["fc1"].bias_type == kind


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [
        ("TableSize", 64, "table_size"),
        ("table_size", 64, "table_size"),
        ("implementation", "latency", "implementation"),
        ("SoftmaxImplementation", "latency", "implementation"),
        ("Implementation", "LATENCY", "implementation"),
    ],
)
def test_other_spellings_of_a_key(model: Any, key: str, value: Any, attribute: str) -> None:
    hls_model = convert(model, {"LayerName": {"softmax": {key: value}}})
    assert getattr(hls_model["softmax"], attribute) == (value.lower() if isinstance(value, str) else value)


def test_table_means_both_tables_of_softmax(model: Any) -> None:
    hls_model = convert(model, {"LayerName": {"softmax": {"Precision": {"table": "ap_fixed<20,4>"}}}})
    assert str(hls_model["softmax"].exp_table_type) == str(hls_model["softmax"].inv_table_type) == "ap_fixed<20,4>"


def test_settings_of_a_shared_layer_reach_every_call() -> None:
    import keras

    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = keras.layers.Dense(2, name="shared")
    model = randomise(keras.Model([a, b], [shared(a), shared(b)]))
    config = kconvert.config_from_keras_model(model, granularity="name")
    config["LayerName"]["shared"]["Precision"]["weight"] = "ap_fixed<5,1>"
    calls = [n for n in convert(model, config).nodes if n.layer == "shared"]
    assert [str(n.weight_type) for n in calls] == ["ap_fixed<5,1>"] * 2


# ---- what is wrong is named with its path ----

WRONG: list[tuple[Any, str]] = [
    ({"Layers": {}}, r"hls_config → Layers: unknown key.*LayerName"),
    ({"layername": {}}, r"hls_config → layername: unknown key; did you mean 'LayerName'\?"),
    (["Model"], r"hls_config: expected a mapping, got list"),
    ({"Model": "ap_fixed<16,6>"}, r"Model: expected a mapping, got str"),
    ({"Model": {"Precison": "ap_fixed<16,6>"}}, r"Model → Precison: unknown key; did you mean 'Precision'\?"),
    ({"Model": {"ReuseFactor": 0}}, r"Model → ReuseFactor: 0 is not allowed; give a positive integer"),
    ({"Model": {"ReuseFactor": 2.5}}, r"Model → ReuseFactor: 2.5 is not allowed"),
    ({"Model": {"ReuseFactor": True}}, r"Model → ReuseFactor: True is not allowed"),
    ({"Model": {"Strategy": "Fast"}}, r"Model → Strategy: 'Fast' is not allowed; give Latency or Resource"),
    ({"LayerName": {"fc1": {"Precison": {}}}}, r"LayerName → fc1 → Precison: unknown key; did you mean 'Precision'\?"),
    ({"LayerName": {"fc1": ["ap_fixed<16,6>"]}}, r"LayerName → fc1: expected a mapping, got list"),
    ({"LayerName": {"fc1": {"Precision": 16}}}, r"LayerName → fc1 → Precision: expected a mapping, got int 16"),
    (
        {"LayerName": {"fc1": {"Precision": {"weigth": "ap_fixed<8,2>"}}}},
        r"LayerName → fc1 → Precision → weigth: unknown key; did you mean 'weight'\? \(known: accum, bias, default",
    ),
    (
        {"LayerName": {"fc1_relu": {"Precision": {"weight": "ap_fixed<8,2>"}}}},
        r"LayerName → fc1_relu → Precision → weight: unknown key.*result",
    ),
    ({"LayerName": {"fc11": {}}}, r"LayerName → fc11: the model has no such layer; did you mean 'fc1'\?"),
    ({"LayerName": {"output_linear": {}}}, r"LayerName → output_linear: .*'output' has a linear activation"),
    ({"LayerType": {"Dens": {}}}, r"LayerType → Dens: the model has no such layer; did you mean 'Dense'\?"),
    ({"LayerType": {"Conv2D": {}}}, r"LayerType → Conv2D: the model has no such layer"),
    ({"LayerName": {"fc1": {"table_size": 64}}}, r"LayerName → fc1 → table_size: a Dense layer has no such setting"),
    (
        {"LayerType": {"Dense": {"Implementation": "stable"}}},
        r"LayerType → Dense → Implementation: a Dense layer has no such",
    ),
    (
        {"LayerName": {"softmax": {"Implementation": "exact"}}},
        r"LayerName → softmax → Implementation: 'exact' is not allowed",
    ),
    ({"LayerName": {"softmax": {"table_size": "1024"}}}, r"LayerName → softmax → table_size: '1024' is not allowed"),
    (
        {"LayerName": {"softmax": {"Trace": "yes"}}},
        r"LayerName → softmax → Trace: 'yes' is not allowed; give true or false",
    ),
    (
        {"LayerName": {"softmax": {"table_size": 64, "TableSize": 128}}},
        r"LayerName → softmax: table_size and TableSize are the same setting",
    ),
    ({3: {}}, r"hls_config → 3: unknown key"),
    ({"Model": {3: 4}}, r"Model → 3: unknown key"),
    ({"LayerName": {"fc1": {"Precision": {3: "ap_fixed<8,2>"}}}}, r"LayerName → fc1 → Precision → 3: unknown key"),
    (
        {"LayerName": {"fc1": {"Precision": {"table": "ap_fixed<8,2>"}}}},
        r"LayerName → fc1 → Precision → table: unknown key",
    ),
    ({"LayerName": {"fc1": {"table_t": "ap_fixed<8,2>"}}}, r"LayerName → fc1 .*table.*: unknown key"),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=lambda v: str(v)[:50])
def test_what_is_wrong_is_named_with_its_path(model: Any, config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(model, config)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("ap_fixd<16,6>", r"LayerName → fc1 → Precision → weight: .*ap_fixed"),
        ("ap_fixed<16,6", r"LayerName → fc1 → Precision → weight: "),
        ("ap_fixed<0,0>", r"LayerName → fc1 → Precision → weight: "),
        ("ap_fixed<65,6>", r"LayerName → fc1 → Precision → weight: .*64"),
        ("ap_fixed<16,6,AP_ROUND>", r"LayerName → fc1 → Precision → weight: .*AP_RND"),
        ("float", r"LayerName → fc1 → Precision → weight: "),
        ("", r"LayerName → fc1 → Precision → weight: "),
        (16, r"LayerName → fc1 → Precision → weight: "),
        (None, r"LayerName → fc1 → Precision → weight: "),
    ],
)
def test_a_bad_precision_is_named_with_its_path(model: Any, precision: Any, message: str) -> None:
    with pytest.raises(PrecisionError, match=message):
        convert(model, {"LayerName": {"fc1": {"Precision": {"weight": precision}}}})


def test_a_bad_precision_of_the_model_or_a_table(model: Any) -> None:
    with pytest.raises(PrecisionError, match="Model → Precision → default: "):
        convert(model, {"Model": {"Precision": "ap_fixed<16;6>"}})
    with pytest.raises(PrecisionError, match="LayerName → softmax → exp_table_t: "):
        convert(model, {"LayerName": {"softmax": {"exp_table_t": "18,8"}}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "layer"}, "unknown granularity 'layer'; choose from model, type, name"),
        ({"default_precision": "ap_fixed<16>"}, "ap_fixed<16>"),
        ({"default_precision": "auto"}, "default_precision cannot be 'auto'"),
        ({"default_reuse_factor": 0}, "default_reuse_factor 0 is not a positive integer"),
        ({"default_reuse_factor": "2"}, "default_reuse_factor '2' is not a positive integer"),
    ],
)
def test_bad_arguments_of_config_from_keras_model(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, PrecisionError), match=message):
        kconvert.config_from_keras_model(model, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "Quartus"}, "unknown backend 'Quartus'; choose from Vitis, Vivado"),
        ({"io_type": "io_serial"}, "old name of 'io_stream'"),
        ({"io_type": "parallel"}, "unknown io_type 'parallel'; choose from io_parallel, io_stream"),
        ({"part": "xc7 [exec rm]"}, "no part number"),
        ({"part": ""}, "no part number"),
        ({"clock_period": 0}, "not a positive number of nanoseconds"),
        ({"clock_period": float("nan")}, "not a positive number of nanoseconds"),
        ({"clock_period": "5"}, "not a positive number of nanoseconds"),
        ({"clock_uncertainty": "a lot"}, "no share such as '12.5%'"),
    ],
)
def test_bad_project_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProjectSettings(**options)


def test_the_tools_own_clock_uncertainty_is_the_default() -> None:
    assert [ProjectSettings(backend=b).uncertainty for b in ("Vitis", "Vivado")] == ["27%", "12.5%"]
    assert ProjectSettings(clock_uncertainty="3%").uncertainty == "3%"
