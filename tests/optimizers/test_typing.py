"""Types left auto: never a bit lost, whatever the weights and inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType, HLSModel
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ConfigError
from kconvert.layers import Add, BatchNormalization, Concatenate, Constant, Input, Pool, Relu, View, Weighted
from tests import reference
from tests.layers.common import assert_exact, convert
from tests.models import randomise
from tests.optimizers.common import graph_of
from tests.reference import Exact

LINEAR = (
    "Dense",
    "Conv2D",
    "DepthwiseConv2D",
    "BatchNormalization",
    "ReLU",
    "LeakyReLU",
    "MaxPooling2D",
    "Add",
    "Concatenate",
)


def random_net(seed: int) -> ModelSpec:
    """Return a small net of layers whose arithmetic is exact, with weights at the ends of their types too."""
    random = np.random.default_rng(seed)
    specs = [LayerSpec("InputLayer", "x", {"batch_shape": (None, 4, 4, 2)}, ((),))]
    shapes = {"x": (4, 4, 2)}

    # every other net has all weights at the lowest end, where the sums are largest
    choices = [-100.0] if seed % 2 else [-100.0, 100.0, 0.0, 1.0, -1.0]

    def extreme(*shape: int) -> np.ndarray:
        return random.choice(choices, shape) + random.choice([0.0, 0.3], shape)

    for number in range(int(random.integers(2, 6))):
        kind, name = str(random.choice(LINEAR)), f"layer_{number}"
        source = str(random.choice(list(shapes)[-2:]))
        height, width, channels = shape = shapes[source]
        reads, config, arrays = [source], {}, []
        if kind == "Dense":
            config, arrays = {"units": 3}, [extreme(channels, 3), extreme(3)]
            shape = (height, width, 3)
        elif kind == "Conv2D":
            config = {"kernel_size": [2, 2], "strides": [1, 1], "padding": "same"}
            arrays, shape = [extreme(2, 2, channels, 2), extreme(2)], (height, width, 2)
        elif kind == "DepthwiseConv2D":
            config = {"kernel_size": [2, 1], "strides": [1, 1], "padding": "same"}
            arrays = [extreme(2, 1, channels, 1), extreme(channels)]
        elif kind == "BatchNormalization":
            arrays = [extreme(channels), extreme(channels), extreme(channels), np.abs(extreme(channels)) + 0.5]
        elif kind == "LeakyReLU":
            config = {"name": name, "negative_slope": float(random.choice([0.3, 0.25, 3.0]))}
        elif kind == "MaxPooling2D":
            config = {"pool_size": [2, 2], "strides": [1, 1], "padding": "same"}
        elif kind in ("Add", "Concatenate"):
            reads += [n for n, s in shapes.items() if s == shape][: int(random.integers(1, 3))]
            shape = (height, width, channels * len(reads)) if kind == "Concatenate" else shape
        specs.append(LayerSpec(kind, name, config, (tuple(map(TensorRef, reads)),), tuple(arrays), ("",) * len(arrays)))
        shapes[name] = shape
    return ModelSpec("random", tuple(specs), (TensorRef("x"),), (TensorRef(list(shapes)[-1]),))


def unbounded(model: HLSModel, x: np.ndarray) -> Exact:
    """Return the output in integers of any size: parameters and inputs are in their types, nothing else is in any."""
    values: dict[int, Exact] = {}
    for node in model.nodes:
        read = [values[id(v)] for v in node.inputs]
        constants = {role: Exact.of(c) for role, c in node.constants().items()}
        match node:
            case Input():
                kind = node.typed("result")
                y = Exact(kind.to_raw(x).astype(object), kind.fraction)
            case Weighted():
                terms = Exact(reference.columns_of(node, read[0].raw), read[0].fraction)
                products = terms * constants["weight"].reshape(node.fan_in, node.fan_out)
                y = Exact(products.raw.sum(axis=-2), products.fraction) + constants["bias"]
            case BatchNormalization():
                y = read[0] * constants["scale"] + constants["bias"]
            case Relu():
                slope = constants.get("slope", Exact(np.array([0], dtype=object), 0))
                below, above = read[0] * slope, read[0]
                fraction = max(below.fraction, above.fraction)
                y = Exact(np.where(above.raw < 0, below.at(fraction), above.at(fraction)), fraction)
            case Add():
                y = reference.exact(node, *read)
            case Concatenate():
                fraction = max(r.fraction for r in read)
                y = Exact(np.concatenate([r.at(fraction) for r in read], axis=node.axis + 1), fraction)
            case Pool() | View():
                y = reference.exact(node, *read)
        values[id(node.output)] = y.reshape(len(x), *node.output.shape)
    return values[id(model.outputs[0])]


# Narrow operands, so that a chain of lossless layers stays below 64 bits.
NARROW = {"Model": {"Precision": {"default": "ap_fixed<5,3,AP_RND,AP_SAT>", "result": "auto"}}}


@pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")
@pytest.mark.parametrize("seed", range(40))
def test_a_net_of_inferred_types_loses_nothing(seed: int) -> None:
    """Exact integers without any type give the same as the inferred ones, at the ends of every range."""
    spec = random_net(seed)
    hls_model = kconvert.convert_from_keras_model(spec, NARROW)
    kind = hls_model["x"].output.known_type()
    random = np.random.default_rng(seed)
    x = random.choice([kind.min, kind.max, kind.step, -kind.step, 0.0], (12, 4, 4, 2))
    x[0], x[1] = kind.min, kind.max
    exact = unbounded(hls_model, x)
    (answers,), _ = reference.run(hls_model, x)
    out = hls_model.outputs[0].known_type()
    assert np.array_equal(
        Exact(exact.raw, exact.fraction).to(out.with_(width=128, integer=128 - out.fraction)).floats(), answers
    )
    if seed < 4:  # the C++ agrees with the reference in all other tests; these make sure that it does here
        hls_model.compile()
        assert_exact(hls_model, [x])


@pytest.mark.parametrize("seed", range(16))
def test_lossless_types_are_no_wider_than_the_operands_need(seed: int) -> None:
    """With all weights and inputs at the ends of their ranges, the top bits of an accumulator are used."""
    import keras

    fan_in = seed + 1
    x = keras.Input((fan_in,), name="x")
    model = keras.Model(x, keras.layers.Dense(1, name="fc")(x))
    model.set_weights([np.full((fan_in, 1), -8.0), np.full(1, -8.0)])
    config = {"Model": {"Precision": "ap_fixed<6,4,AP_RND,AP_SAT>"}}
    hls_model = kconvert.convert_from_keras_model(model, config)
    accum = hls_model["fc"].accum_type
    largest = fan_in * 64.0 - 8.0
    assert accum.min <= -largest
    assert largest <= accum.max < 8 * max(largest, 8.0)


def _two_dense() -> Any:
    import keras

    layers = keras.layers
    x = keras.Input((4,), name="x")
    return randomise(keras.Model(x, layers.Dense(4, name="fc2")(layers.Dense(4, name="fc1")(x))))


def test_a_lossless_type_beyond_64_bits_keeps_its_upper_bits() -> None:
    model = _two_dense()
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision="ap_fixed<32,14>")
    hls_model = convert(model, config)
    assert hls_model["fc1"].accum_type == FixedType.parse("ap_fixed<64,31>")
    x = np.random.default_rng(0).normal(size=(50, 4))
    (y,) = assert_exact(hls_model, [x])
    np.testing.assert_allclose(y, model.predict(x, verbose=0), atol=1e-3)


def test_a_lossless_type_with_no_fraction_left_says_what_to_set() -> None:
    model = _two_dense()
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision="ap_fixed<32,16>")
    config["LayerName"]["fc1"]["Precision"]["result"] = "auto"
    with pytest.raises(ConfigError, match=r"'fc2': a lossless accum needs .*64 bits are the most; set .*'fc1'"):
        kconvert.convert_from_keras_model(model, config)


def test_an_activation_narrows_its_result_also_before_a_normalisation() -> None:
    import keras

    layers = keras.layers
    x = keras.Input((4,), name="x")
    y = layers.BatchNormalization(name="bn")(layers.LeakyReLU(name="leaky")(layers.Dense(4, name="fc")(x)))
    hls_model = convert(randomise(keras.Model(x, layers.Softmax(name="softmax")(y))))
    assert str(hls_model["leaky"].result_type) == "ap_fixed<16,6,AP_RND,AP_SAT>"


def test_every_type_is_known_afterwards_and_history_tells_the_story() -> None:
    from tests.models import mlp_batchnorm

    hls_model = convert(mlp_batchnorm())
    assert all(t is not None for n in hls_model.nodes for t in (getattr(n, a) for a in n.roles.values()))
    steps = [name for name, _ in hls_model.history]
    assert steps == [
        "read",
        "split_activations",
        "apply_settings",
        "drop_identities",
        "fold_batch_normalization",
        "infer_types",
    ]
    texts = dict(hls_model.history)
    assert "bn1 = BatchNormalization(fc1)" in texts["drop_identities"]
    assert "bn1" not in texts["infer_types"]
    assert "auto" in texts["fold_batch_normalization"]
    assert "auto" not in texts["infer_types"]
    assert texts["infer_types"] == str(hls_model)
    assert str(hls_model).splitlines()[-1].startswith("return ")


def test_a_pass_that_changes_nothing_leaves_no_history() -> None:
    import keras

    x = keras.Input((3,), name="x")
    hls_model = kconvert.convert_from_keras_model(keras.Model(x, keras.layers.Dense(2, name="fc")(x)))
    assert "fold_batch_normalization" not in [name for name, _ in hls_model.history]
    assert "drop_identities" not in [name for name, _ in hls_model.history]


def test_running_the_graph_again_from_its_spec_gives_the_same_types() -> None:
    from tests.models import conv2d_net

    model = conv2d_net()
    one, two = kconvert.convert_from_keras_model(model), kconvert.convert_from_keras_model(model)
    assert str(one) == str(two)
    assert graph_of(model).spec.layers[0] == dataclasses.replace(one.spec.layers[0])


def _constant(values: Any) -> Constant:
    return Constant(np.asarray(values), kconvert.FixedType(8, 4))


def test_constants_are_flattened_in_c_order() -> None:
    assert _constant([[1.0, 2.0], [3.0, 4.0]]).raw.tolist() == [16, 32, 48, 64]


@pytest.mark.parametrize(
    "precision",
    ["ap_fixed<64,32>", {"default": "ap_fixed<64,32>", "accum": "ap_fixed<64,32>"}],
    ids=["sum", "one product"],
)
def test_a_sum_that_no_integer_holds_names_the_layer(precision: Any) -> None:
    import keras

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, name="fc")])
    with pytest.raises(ConfigError, match=r"layer 'fc': its exact intermediate values are too wide"):
        kconvert.convert_from_keras_model(model, {"Model": {"Precision": precision}})
