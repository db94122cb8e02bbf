"""Binary weights: one bit each in hardware, and the bits of ordinary ones as answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType, HLSModel
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import GraphError
from kconvert.firmware import Firmware
from kconvert.layers import (
    ApplyAlpha,
    Conv,
    Dense,
    DepthwiseConv,
    Input,
    Node,
    Pool,
    Reshape,
    Thresholds,
    Weighted,
    Window,
    ZeroPadding,
)
from kconvert.types import exact_type
from tests.layers.common import assert_exact, inputs_of
from tests.test_project import run_test_bench

Settings = Mapping[str, Mapping[str, Any]]
CODES = FixedType(2, 2)


def signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape)


def weighted(kind: type[Weighted], *shape: int, seed: int = 0, **options: Any) -> Weighted:
    """Return a layer called "layer" with binary weights of a shape, and a bias."""
    bias = np.random.default_rng(seed + 1).integers(-8, 8, shape[-1]) / 4
    preset = {"weight": CODES, "bias": exact_type(bias)}
    options = {"binary": True, "preset": preset, **options}
    return kind(name="layer", weight=signs(*shape, seed=seed), bias=bias, **options)


def to_signs(name: str = "signs") -> Thresholds:
    return Thresholds(name=name, thresholds=np.array([[0.0]]), levels=np.array([-1.0, 1.0]))


def chain(shape: tuple[int, ...], *nodes: Node, layers: Settings | None = None) -> HLSModel:
    """Return a compiled model of nodes one after the other; `layers` are settings by their names."""
    model = HLSModel(ModelSpec("handmade", (), (TensorRef("x"),), ()), {"LayerName": layers or {}})
    value = model.add(Input(name="x", shape=shape))
    for node in nodes:
        value = model.add(node, value)
    model.outputs = [value]
    model.run()
    model.compile()
    return model


def layer_of(model: HLSModel) -> Weighted:
    node = model["layer"]
    assert isinstance(node, Weighted)
    return node


def stored_as(model: HLSModel) -> str:
    """Return the C++ type of the weights in the generated header."""
    header = Firmware(model).sources(with_weights=True)["firmware/defines.h"]
    (line,) = [line for line in header.splitlines() if "_weight_t;" in line]
    return line.removeprefix("typedef ").removesuffix(" layer_weight_t;")


# Fan-ins below, at and above a multiple of 32; many outputs and a single one.
LAYERS: dict[str, tuple[tuple[int, ...], Callable[..., Weighted]]] = {
    "dense": ((70,), lambda **o: weighted(Dense, 70, 29, **o)),
    "dense, two words": ((64,), lambda **o: weighted(Dense, 64, 12, **o)),
    "dense, one output": ((7,), lambda **o: weighted(Dense, 7, 1, **o)),
    "dense at every position": ((3, 33), lambda **o: weighted(Dense, 33, 4, **o)),
    "conv1d": ((9, 4), lambda **o: weighted(Conv, 1, 3, 4, 5, window=Window((1, 3), (1, 2)), **o)),
    "conv2d": ((5, 6, 3), lambda **o: weighted(Conv, 3, 2, 3, 4, window=Window((3, 2), (1, 1)), **o)),
    "depthwise": ((5, 6, 3), lambda **o: weighted(DepthwiseConv, 2, 3, 3, window=Window((2, 3), (1, 1)), **o)),
    "depthwise, two filters": (
        (4, 6, 2),
        lambda **o: weighted(DepthwiseConv, 2, 2, 4, depth_multiplier=2, window=Window((2, 2), (2, 2)), **o),
    ),
}
PADDED: dict[str, tuple[tuple[int, ...], Callable[..., Weighted]]] = {
    "conv1d": ((9, 4), lambda **o: weighted(Conv, 1, 3, 4, 5, window=Window((1, 3), (1, 1), (0, 0, 1, 1)), **o)),
    "conv2d": ((5, 4, 2), lambda **o: weighted(Conv, 3, 3, 2, 4, window=Window((3, 3), (2, 2), (1, 1, 0, 1)), **o)),
    "depthwise": (
        (5, 4, 3),
        lambda **o: weighted(DepthwiseConv, 3, 3, 3, window=Window((3, 3), (1, 1), (1,) * 4), **o),
    ),
}
SCALES: dict[str, Callable[[int], np.ndarray | None]] = {
    "no alpha": lambda outputs: None,
    "power of two": lambda outputs: np.array([0.125]),
    "large power of two": lambda outputs: np.array([16.0]),
    "any alpha": lambda outputs: np.linspace(0.3, -1.7, outputs),
}


every_layer_and_scale = pytest.mark.parametrize(
    ("name", "scale"),
    [(name, "no alpha") for name in LAYERS]
    + [(name, scale) for name in ("dense", "conv1d", "depthwise") for scale in SCALES if scale != "no alpha"],
)


@every_layer_and_scale
def test_numbers_times_signs(name: str, scale: str) -> None:
    shape, make = LAYERS[name]
    node = make()
    node.weight_scale = SCALES[scale](node.fan_out)
    model = chain(shape, node)
    assert (node.product, stored_as(model)) == ("sign", "ap_uint<1>")
    assert isinstance(model.nodes[-1], ApplyAlpha) == (scale == "any alpha")
    assert len(np.unique(assert_exact(model, inputs_of(model))[0])) > 10


@every_layer_and_scale
def test_signs_times_signs(name: str, scale: str) -> None:
    shape, make = LAYERS[name]
    node = make()
    node.weight_scale = SCALES[scale](node.fan_out)
    model = chain(shape, to_signs(), node)
    assert (node.product, stored_as(model)) == ("xnor", "ap_uint<1>")
    assert len(np.unique(assert_exact(model, inputs_of(model))[0])) > 2


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("binary_inputs", [False, True])
def test_padding_is_zeros_and_no_sign(name: str, binary_inputs: bool) -> None:
    shape, make = PADDED[name]
    node = make()
    model = chain(shape, *([to_signs()] if binary_inputs else []), node)
    assert (node.product, stored_as(model)) == ("sign", "ap_uint<1>")
    assert_exact(model, inputs_of(model))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("binary_inputs", [False, True])
def test_the_answers_are_those_of_ordinary_weights(name: str, binary_inputs: bool) -> None:
    shape, make = LAYERS[name]
    before = [to_signs()] if binary_inputs else []
    bits, ordinary = chain(shape, *before, make()), chain(shape, *before, make(binary=False))
    assert (layer_of(ordinary).product, stored_as(ordinary)) == ("exact", str(CODES))
    assert layer_of(bits).accum_type == layer_of(ordinary).accum_type
    x = inputs_of(bits)[0]
    assert np.array_equal(bits.predict(x), ordinary.predict(x))


# What the accumulator of 70 products of signs and a bias of quarters may be, and how they are summed then.
ACCUMULATORS = {
    "auto": "xnor",
    "ap_fixed<20,12,AP_RND_CONV,AP_SAT>": "xnor",
    "ap_fixed<11,9>": "xnor",
    "ap_fixed<12,10,AP_TRN,AP_SAT_SYM>": "xnor",
    "ap_fixed<9,7>": "sign",  # wraps at 64
    "ap_fixed<6,4,AP_TRN,AP_SAT>": "sign",
    "ap_fixed<9,8>": "sign",  # the bias is rounded
    "ap_ufixed<12,9,AP_TRN,AP_SAT>": "sign",
    "ap_fixed<8,8,AP_RND_CONV,AP_SAT_SYM>": "sign",
}


@pytest.mark.parametrize("accum", ACCUMULATORS)
@pytest.mark.parametrize("binary_inputs", [False, True])
def test_signs_are_counted_only_where_no_sum_is_rounded(accum: str, binary_inputs: bool) -> None:
    shape, make = LAYERS["dense"]
    node = make()
    model = chain(
        shape, *([to_signs()] if binary_inputs else []), node, layers={"layer": {"Precision": {"accum": accum}}}
    )
    assert node.product == (ACCUMULATORS[accum] if binary_inputs else "sign")
    assert_exact(model, inputs_of(model))


@pytest.mark.parametrize(
    ("precision", "accum"),
    [
        ("ap_fixed<1,1>", "auto"),
        ("ap_fixed<1,1>", "ap_fixed<13,6,AP_RND_INF,AP_SAT>"),
        ("ap_ufixed<7,2>", "ap_fixed<12,9>"),
        ("ap_fixed<31,9>", "ap_fixed<13,6,AP_RND_INF,AP_SAT>"),
        ("ap_fixed<40,12>", "auto"),
        ("ap_fixed<40,12>", "ap_fixed<12,9,AP_RND_MIN_INF>"),
        ("ap_fixed<64,30>", "ap_fixed<64,40>"),
        ("ap_fixed<64,30>", "ap_fixed<13,6,AP_RND_INF,AP_SAT>"),
    ],
)
def test_inputs_of_any_width(precision: str, accum: str) -> None:
    settings = {"x": {"Precision": precision}, "layer": {"Precision": {"accum": accum}}}
    for name in ("dense, one output", "depthwise"):
        shape, make = LAYERS[name]
        model = chain(shape, make(), layers=settings)
        assert layer_of(model).product == "sign"
        assert_exact(model, inputs_of(model))


@pytest.mark.parametrize("binary_inputs", [False, True])
@pytest.mark.parametrize("name", ["dense", "conv2d"])
def test_resource_strategy(name: str, binary_inputs: bool) -> None:
    shape, make = LAYERS[name]
    before = [to_signs()] if binary_inputs else []
    shared = chain(shape, *before, make(), layers={"layer": {"Strategy": "Resource", "ReuseFactor": 2}})
    x = inputs_of(shared)
    assert np.array_equal(assert_exact(shared, x)[0], chain(shape, *before, make()).predict(x[0]))


@pytest.mark.parametrize(
    ("precision", "product"),
    [
        ("ap_fixed<2,2>", "sign"),
        ("ap_int<2>", "sign"),
        ("ap_fixed<2,2,AP_RND,AP_SAT_SYM>", "sign"),
        ("ap_fixed<8,3>", "exact"),
        ("ap_fixed<3,2>", "exact"),
        ("ap_fixed<2,1>", "exact"),  # -1 and, wrapped, -1
        ("ap_ufixed<2,2>", "exact"),
        ("auto", "exact"),  # the default type
    ],
)
def test_weights_of_a_type_of_the_users(precision: str, product: str) -> None:
    shape, make = LAYERS["dense"]
    model = chain(shape, make(), layers={"layer": {"Precision": {"weight": precision}}})
    assert layer_of(model).product == product
    assert stored_as(model) == ("ap_uint<1>" if product == "sign" else str(layer_of(model).weight_type))
    assert_exact(model, inputs_of(model))


# ***** what is binary *****

STEPS = np.array([[-0.5], [0.5]])
SOURCES: dict[str, tuple[list[Node], str]] = {
    "steps down": ([Thresholds(name="s", thresholds=STEPS[:1], levels=np.array([1.0, -1.0]))], "xnor"),
    "there and back": ([Thresholds(name="s", thresholds=STEPS, levels=np.array([-1.0, 1.0, -1.0]))], "xnor"),
    "halves": ([Thresholds(name="s", thresholds=STEPS[:1], levels=np.array([-0.5, 0.5]))], "xnor"),
    "reshaped": ([to_signs(), Reshape(name="r", shape=(6, 6, 2))], "xnor"),
    "pooled": ([to_signs(), Pool(name="p", window=Window((3, 2), (1, 1)), average=False)], "xnor"),
    "pooled with padding": (
        [to_signs(), Pool(name="p", window=Window((3, 3), (1, 1), (1, 1, 1, 1)), average=False)],
        "xnor",
    ),
    "averaged": ([to_signs(), Pool(name="p", window=Window((2, 2), (1, 1)), average=True)], "sign"),
    "padded": ([to_signs(), ZeroPadding(name="z", padding=(1, 0, 0, 1))], "sign"),
    "ternary": ([Thresholds(name="s", thresholds=STEPS, levels=np.array([-1.0, 0.0, 1.0]))], "sign"),
    "0 and 1": ([Thresholds(name="s", thresholds=STEPS[:1], levels=np.array([0.0, 1.0]))], "sign"),
    "-2 and 1": ([Thresholds(name="s", thresholds=STEPS[:1], levels=np.array([-2.0, 1.0]))], "sign"),
    "numbers": ([Reshape(name="r", shape=(6, 6, 2))], "sign"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_inputs_that_are_signs(name: str) -> None:
    nodes, product = SOURCES[name]
    window = Window((2, 2), (1, 1))
    for kind, shape in ((Conv, (2, 2, 2, 3)), (DepthwiseConv, (2, 2, 2))):
        node = weighted(kind, *shape, window=window)
        model = chain((6, 6, 2), *nodes, node)
        assert node.product == product
        assert_exact(model, inputs_of(model))


@pytest.mark.parametrize(
    ("precision", "product"),
    [("ap_fixed<2,2,AP_RND,AP_SAT>", "xnor"), ("ap_fixed<16,6>", "sign"), ("ap_fixed<2,1>", "sign")],
)
def test_signs_of_a_type_of_the_users(precision: str, product: str) -> None:
    shape, make = LAYERS["dense"]
    for setting in ("signs", "view"):
        nodes = [to_signs(), Reshape(name="view", shape=shape)]
        model = chain(shape, *nodes, make(), layers={setting: {"Precision": {"result": precision}}})
        assert layer_of(model).product == product
        assert_exact(model, inputs_of(model))


def test_trained_numbers_decide_nothing() -> None:
    random, plus, minus = (weighted(Dense, 6, 4, seed=3) for _ in range(3))
    plus.weight, minus.weight = np.ones((6, 4)), -np.ones((6, 4))
    ternary = weighted(Dense, 6, 4, binary=False)  # none is 0, as it happens
    models = [chain((6,), node) for node in (random, plus, minus, ternary)]
    texts = [Firmware(model).sources(with_weights=False) for model in models]
    assert texts[0] == texts[1] == texts[2] != texts[3]
    assert [stored_as(model) for model in models] == ["ap_uint<1>"] * 3 + ["ap_fixed<2,2>"]


def test_a_reader_that_is_wrong_about_its_weights_is_caught() -> None:
    node = weighted(Dense, 6, 4)
    node.weight[2, 1] = 0.0
    with pytest.raises(GraphError, match="'layer': its weights were said to be binary"):
        chain((6,), node)


def test_weights_that_are_scaled_are_no_signs_any_more() -> None:
    node = weighted(Dense, 6, 4)
    node.scale_outputs(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4))
    model = chain((6,), node, layers={"layer": {"Precision": {"weight": "ap_fixed<6,4>"}}})
    assert node.product == "exact"
    assert_exact(model, inputs_of(model))


def test_the_graph_says_so() -> None:
    model = chain((6,), weighted(Dense, 6, 4), Reshape(name="r", shape=(2, 2)))
    assert "weight ap_fixed<2,2>" in model["layer"].describe()
    assert model["layer"].describe().endswith("weights of 1 bit")
    assert "1 bit" not in model["r"].describe()


# ***** from QKeras to the project *****


def test_quantizers_that_are_binary() -> None:
    qkeras, keras = pytest.importorskip("qkeras"), pytest.importorskip("keras")
    random = np.random.default_rng(0)
    for quantizer, product in {
        "binary(alpha=1)": "sign",
        "binary()": "sign",
        "binary(alpha=0.25)": "sign",
        "binary(alpha='auto')": "sign",
        "stochastic_binary(alpha=1)": "sign",
        "quantized_bits(1,0,alpha=1)": "sign",
        "quantized_linear(1,2,alpha=1)": "sign",
        "quantized_linear(1,0,alpha='auto_po2')": "sign",
        "binary(use_01=True,alpha=1)": "exact",
        "ternary(alpha=1)": "exact",
        "quantized_bits(2,1,alpha=1)": "exact",
        "quantized_po2(2,1)": "exact",
    }.items():
        x = keras.Input((9,), name="x")
        net = keras.Model(x, qkeras.QDense(4, kernel_quantizer=quantizer, name="layer")(x))
        net.layers[-1].set_weights([random.normal(size=(9, 4)), random.normal(size=4)])
        model = kconvert.convert_from_keras_model(net)
        model.compile()
        assert layer_of(model).product == product, quantizer
        assert_exact(model, inputs_of(model))


@pytest.mark.parametrize(("kind", "product"), [("BinaryDense", "sign"), ("TernaryDense", "exact")])
@pytest.mark.parametrize("height", [1.0, 0.5, 0.7])
def test_layers_of_the_keras_1_era(kind: str, product: str, height: float) -> None:
    given = LayerSpec(
        kind,
        "layer",
        {"units": 3, "H": height, "activation": "linear"},
        ((TensorRef("x"),),),
        (np.random.default_rng(0).normal(size=(8, 3)), np.array([0.5, -0.25, 1.0])),
        ("kernel", "bias"),
    )
    entry = LayerSpec("InputLayer", "x", {"batch_shape": [None, 8]}, ((),))
    spec = ModelSpec("old", (entry, given), (TensorRef("x"),), (TensorRef("layer"),))
    model = kconvert.convert_from_keras_model(spec)
    model.compile()
    assert layer_of(model).product == product
    assert_exact(model, inputs_of(model))


def binary_network() -> Any:
    """Every layer with binary weights, on numbers and on signs."""
    qkeras, keras = pytest.importorskip("qkeras"), pytest.importorskip("keras")
    binary = qkeras.binary
    x = keras.Input((6, 7, 2), name="x")
    y = qkeras.QConv2D(4, 3, padding="same", kernel_quantizer=binary(alpha=0.5), name="first")(x)
    y = qkeras.QActivation("binary(alpha=1)", name="signs")(y)
    y = qkeras.QConv2D(5, 2, kernel_quantizer=binary(alpha="auto"), name="conv")(y)
    y = keras.layers.MaxPooling2D(2, name="pool")(qkeras.QActivation("binary(alpha=1)", name="more_signs")(y))
    y = qkeras.QDepthwiseConv2D((1, 2), depthwise_quantizer=binary(alpha=1), name="depthwise")(y)
    z = qkeras.QDepthwiseConv2D(2, padding="same", depthwise_quantizer=binary(alpha=1), name="padded")(x)
    y, z = keras.layers.Flatten(name="flat")(qkeras.QActivation("binary(alpha=1)", name="last")(y)), z
    outputs = [qkeras.QDense(3, kernel_quantizer=binary(alpha=2.0), name="output")(y), z]
    net = keras.Model(x, outputs)
    random = np.random.default_rng(0)
    for layer in net.layers:
        layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    return net


@pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")
@pytest.mark.parametrize("strategy", ["Latency", "Resource"])
def test_the_project_computes_the_same_bits(strategy: str, tmp_path: Path) -> None:
    net = binary_network()
    config = kconvert.config_from_keras_model(net, granularity="name")
    assert config["LayerName"]["first"]["Precision"]["weight"] == "ap_fixed<2,2>"
    for name in ("conv", "output"):
        config["LayerName"][name].update(Strategy=strategy, ReuseFactor=2 if strategy == "Resource" else 1)
    model = kconvert.convert_from_keras_model(net, config, output_dir=tmp_path, project_name="myproject")
    x = inputs_of(model, 20)[0].astype(np.float32)
    model = kconvert.convert_from_keras_model(
        net, config, output_dir=tmp_path, project_name="myproject", input_data_tb=x, output_data_tb=[]
    )
    model.compile()
    products = {n.name: n.product for n in model.nodes if isinstance(n, Weighted)}
    assert products == {"first": "sign", "conv": "xnor", "depthwise": "xnor", "padded": "sign", "output": "xnor"}
    answers = assert_exact(model, [x])
    found = run_test_bench(model.write(), len(x))
    assert np.array_equal(found, np.concatenate([a.reshape(len(x), -1) for a in answers], axis=1))
    header = (tmp_path / "firmware" / "weights" / "first_weight.h").read_text()
    assert header.startswith("// 3x3x2x4, ap_uint<1>: 1 for 0.5, 0 for -0.5\n")
    bits = header.partition("{")[2].partition("}")[0].split(",")
    assert [int(b) for b in bits] == (model["first"].weight.ravel() > 0).astype(int).tolist()  # type: ignore[attr-defined]
