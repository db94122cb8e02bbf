"""Products of tensors: Dot, EinsumDense, Attention, MultiHeadAttention; and Embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ConfigError, UnsupportedLayerError
from tests.layers.common import (
    as_list,
    assert_exact,
    check_layers,
    check_with_32_bits,
    convert,
    inputs_of,
    keras_answers,
)
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, y, block = keras.Input((4, 6), name="x"), keras.Input((5, 6), name="y"), keras.Input((4, 3, 2), name="block")
    flat = layers.Flatten(name="flat")(x)
    einsum, heads = layers.EinsumDense, layers.MultiHeadAttention
    outputs = [
        layers.Dot(axes=2, name="dot")([x, y]),
        layers.Dot(axes=(-1, 2), name="dot_last")([x, y]),
        layers.Dot(axes=1, name="dot_first")([x, x]),
        layers.Dot(axes=1, name="dot_vectors")([flat, flat]),
        layers.Dot(axes=(1, 1), name="dot_block")([block, x]),
        einsum("abc,cd->abd", output_shape=(None, 3), bias_axes="d", name="last")(x),
        einsum("...x,xy->...y", output_shape=3, name="any")(x),
        einsum("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de", activation="relu", name="to_two")(x),
        einsum("abc,bd->adc", output_shape=(3, 6), bias_axes="d", name="first")(x),
        einsum("abcd,cde->abe", output_shape=(None, 3), bias_axes="e", name="of_two")(block),
        einsum("abc,cde->aebd", output_shape=(3, 4, 2), bias_axes="e", name="reordered")(x),
        einsum("ab,bc->ac", output_shape=3, bias_axes="c", name="plain")(flat),
        layers.Attention(name="attention")([x, y]),
        layers.Attention(use_scale=True, name="attention_scaled")([x, y, y]),
        heads(2, 3, name="heads")(x, x),
        heads(2, 3, value_dim=4, output_shape=5, use_bias=False, name="heads_across")(x, y, key=y),
    ]
    return randomise(keras.Model([x, y, block], outputs))


# The tensors between the products are rounded to 2**-10, and so is a share of attention.
@pytest.mark.parametrize("setting", ["default", "accum-saturates"])
def test_every_layer_and_option(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=0.05)


def test_errors_with_32_bits_are_those_of_the_types(model: Any) -> None:
    check_with_32_bits(model, bound=2**-13)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_answers(model: Any, tmp_path: Path, suffix: str) -> None:
    model.save(tmp_path / f"model{suffix}")
    live, stored = convert(model), convert(tmp_path / f"model{suffix}")
    x = inputs_of(live)
    for one, other in zip(as_list(live.predict(x)), as_list(stored.predict(x)), strict=True):
        assert np.array_equal(one, other)


def test_a_lossless_sum_of_products_holds_the_largest() -> None:
    import keras

    a, b = keras.Input((3, 7), name="a"), keras.Input((2, 7), name="b")
    hls_model = convert(keras.Model([a, b], keras.layers.Dot(axes=2, name="dot")([a, b])))
    kind = hls_model.inputs[0].known_type()
    ends = [np.full((1, *v.shape), kind.min) for v in hls_model.inputs]
    assert assert_exact(hls_model, ends)[0].max() == 7 * kind.min**2


def test_a_matrix_product_too_wide_to_be_exact_is_refused() -> None:
    import keras

    a, b = keras.Input((3, 7), name="a"), keras.Input((2, 7), name="b")
    model = keras.Model([a, b], keras.layers.Dot(axes=2, name="dot")([a, b]))
    names = {name: {"Precision": {"result": "ap_fixed<64,40>"}} for name in "ab"}
    with pytest.raises(ConfigError, match=r"'dot': its exact intermediate values are too wide"):
        kconvert.convert_from_keras_model(model, {"LayerName": names})


# ***** Embedding *****


@pytest.fixture(scope="module")
def words() -> Any:
    import keras

    x, y = keras.Input((4,), name="x", dtype="int32"), keras.Input((2, 3), name="y", dtype="int32")
    embedding = keras.layers.Embedding
    outputs = [embedding(11, 3, name="rows")(x), embedding(2, 1, name="bits")(y), embedding(1, 2, name="one")(x)]
    return randomise(keras.Model([x, y], outputs))


def test_numbers_choose_rows(words: Any) -> None:
    import keras

    one = keras.Model(words.inputs[0], words.outputs[0])
    hls_model = convert(one)
    assert str(hls_model.inputs[0].type) == "ap_ufixed<4,4,AP_RND,AP_SAT>"
    x = np.random.default_rng(0).integers(0, 11, (40, 4))
    (answer,) = assert_exact(hls_model, [x])
    assert np.array_equal(answer, keras_answers(one, [x])[0])


def test_several_tables(words: Any) -> None:
    hls_model = convert(words)
    x = [np.random.default_rng(i).integers(0, 2, (20, *v.shape)) for i, v in enumerate(hls_model.inputs)]
    x[0][:] = 0
    for ours, theirs in zip(assert_exact(hls_model, x), keras_answers(words, x), strict=True):
        assert np.array_equal(ours, theirs)


def test_numbers_beyond_the_rows_stand_for_the_nearest(words: Any) -> None:
    hls_model = convert(words)
    rows, *_ = assert_exact(hls_model, [np.array([[-3, 0, 10, 999]]), np.zeros((1, 2, 3))])
    assert np.array_equal(rows[0, 0], rows[0, 1])
    assert np.array_equal(rows[0, 2], rows[0, 3])


# ***** what is refused *****


def layer_of(name: str, *shapes: tuple[int, ...], **options: Any) -> Any:
    import keras

    inputs = [keras.Input(shape) for shape in shapes]
    layer = getattr(keras.layers, name)(name="layer", **options)
    if name == "MultiHeadAttention":
        return keras.Model(inputs, layer(*inputs))
    return keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))


@pytest.mark.parametrize(
    ("name", "shapes", "options", "message"),
    [
        ("Dot", [(3,), (3,)], {"axes": 1, "normalize": True}, "normalize=True"),
        ("Embedding", [(3,)], {"input_dim": 4, "output_dim": 2, "mask_zero": True}, "mask_zero=True"),
        ("Attention", [(3, 2), (4, 2)], {"score_mode": "concat"}, "score_mode='concat'"),
        ("AdditiveAttention", [(3, 2), (4, 2)], {}, "class 'AdditiveAttention' is not supported"),
        (
            "EinsumDense",
            [(3, 4)],
            {"equation": "abc,bcd->abd", "output_shape": (3, 5)},
            "'abc,bcd->abd' is no matrix product",
        ),
        (
            "EinsumDense",
            [(3, 4)],
            {"equation": "abc,cd->abd", "output_shape": (3, 5), "bias_axes": "b"},
            "bias_axes='b'",
        ),
        (
            "MultiHeadAttention",
            [(3, 2, 4), (3, 2, 4)],
            {"num_heads": 1, "key_dim": 2, "attention_axes": (1, 2)},
            "attention_axes=",
        ),
    ],
)
def test_options_that_do_not_convert_are_named(name: str, shapes: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=f"'layer'.*{message}"):
        kconvert.convert_from_keras_model(layer_of(name, *shapes, **options))
