"""Dense: over the last axis of inputs of rank 1 to 3, with and without bias, in both strategies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ConfigError
from tests.layers.common import assert_exact, check_layers, convert, every_setting, inputs_of, typed_config
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    dense = keras.layers.Dense
    vector, one = keras.Input((7,), name="vector"), keras.Input((1,), name="one")
    matrix, block = keras.Input((4, 3), name="matrix"), keras.Input((2, 3, 5), name="block")
    outputs = [
        dense(5, name="plain")(vector),
        dense(3, use_bias=False, name="no_bias")(vector),
        dense(1, name="one_unit")(vector),
        dense(4, activation="relu", name="relu")(vector),
        dense(3, name="one_input")(one),
        dense(2, name="rank_2")(matrix),
        dense(3, use_bias=False, name="rank_3")(block),
    ]
    return randomise(keras.Model([vector, one, matrix, block], outputs))


# Inputs and weights are on the grid of their types and accumulators are lossless, so only Keras' float32 rounds.
@every_setting
def test_every_shape_and_option(model: Any, setting: str) -> None:
    check_layers(model, setting, tolerance=2e-5)


@pytest.mark.parametrize("reuse_factor", [3, 6])
def test_resource_strategy_sums_to_the_same_bits(reuse_factor: int) -> None:
    import keras

    x = keras.Input((6,))
    dense = randomise(keras.Model(x, keras.layers.Dense(4, name="dense")(x)))
    config = typed_config(dense, "accum-saturates", Strategy="Resource", ReuseFactor=reuse_factor)
    shared = convert(dense, config)
    parallel = convert(dense, typed_config(dense, "accum-saturates"))
    x = inputs_of(shared)
    assert np.array_equal(assert_exact(shared, x)[0], assert_exact(parallel, x)[0])


def test_a_reuse_factor_that_does_not_divide_the_matrix_names_those_that_do() -> None:
    import keras

    x = keras.Input((6,))
    dense = randomise(keras.Model(x, keras.layers.Dense(4, name="dense")(x)))
    config = typed_config(dense, "default", Strategy="Resource", ReuseFactor=5)
    with pytest.raises(ConfigError, match=r"'dense'.*5 does not divide its 24 products.*\[2, 3, 4, 6\]"):
        kconvert.convert_from_keras_model(dense, config)


def test_a_chain_of_narrow_layers_hands_on_narrow_values() -> None:
    import keras

    layers = keras.layers
    chain = randomise(keras.Sequential([layers.Input((6,)), *(layers.Dense(6, name=f"d{i}") for i in range(4))]))
    hls_model = convert(chain, typed_config(chain, "8-bit"))
    assert [str(n.result_type) for n in hls_model.nodes[1:]] == ["ap_fixed<8,3,AP_RND_ZERO,AP_SAT>"] * 4
    assert_exact(hls_model, inputs_of(hls_model, 40))
