"""The estimate of what a model costs, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

import kconvert
from kconvert.profiling import Cost, estimate
from tests.models import MODELS, randomise


def converted(kernel: Any, **settings: Any) -> kconvert.HLSModel:
    import keras

    kernel = np.asarray(kernel, dtype=np.float32)
    model = keras.Sequential([keras.Input(kernel.shape[:1], name="x"), keras.layers.Dense(kernel.shape[1], name="fc")])
    model.set_weights([kernel, np.zeros(kernel.shape[1])])
    precision = settings.pop("precision", "ap_fixed<16,6>")
    return kconvert.convert_from_keras_model(
        model, {"Model": {"Precision": precision}, "LayerName": {"fc": settings} if settings else {}}
    )


KERNEL = [[3.0, 0.0], [0.5, -5.0], [-1.0, 0.375]]  # three of six are neither 0 nor a power of two


def test_products_that_are_shifts_need_no_multiplier() -> None:
    (cost,) = estimate(converted(KERNEL))
    assert cost == Cost("fc", "Dense", 3, 3, 3, (6 + 2) * 16, 0, interval=1, latency=1 + 2)


def test_reuse_shares_multipliers() -> None:
    (cost,) = estimate(converted(KERNEL, ReuseFactor=3))
    assert (cost.multiplications, cost.multipliers, cost.interval, cost.latency) == (6, 2, 3, 5)


def test_dsps_by_width() -> None:
    dsps = {w: estimate(converted(KERNEL, precision=f"ap_fixed<{w},4>"))[0].dsps // 3 for w in (9, 10, 18, 19, 27, 28)}
    # below 10 bits LUTs; 27 by 18 bits are one; 27 by 27 two; above 27 four
    assert dsps == {9: 0, 10: 1, 18: 1, 19: 2, 27: 2, 28: 4}


def test_positions_repeat_the_matrix() -> None:
    costs = {cost.layer: cost for cost in estimate(kconvert.convert_from_keras_model(MODELS["conv1d_net"]()))}
    conv1, pool, output = costs["conv1"], costs["pool1"], costs["output"]
    assert conv1.multiplications == 20 * conv1.multipliers
    assert (conv1.interval, conv1.latency) == (20, 20 + 4)  # 9 products: 4 levels of additions
    assert (pool.multiplications, pool.interval, pool.latency) == (0, 1, 1)
    assert output.interval == 1


def test_tables_and_steps() -> None:
    import keras

    model = randomise(keras.Sequential([keras.Input((5, 2), name="x"), keras.layers.LSTM(3, name="lstm")]))
    (cost,) = estimate(kconvert.convert_from_keras_model(model))
    assert cost.multiplications == 5 * (2 * 12 + 3 * 12)
    assert cost.multipliers == 60
    assert cost.table_bits == 2 * 1024 * 18 + 12 * 16  # sigmoid and tanh; the zeros of a bias that Keras has not
    assert cost.interval == cost.latency == 5 * (1 + 2 + 2)


def test_total_and_tables() -> None:
    found = estimate(kconvert.convert_from_keras_model(MODELS["mlp"]()))
    assert found.total.multipliers == sum(cost.multipliers for cost in found)
    assert found.total.interval == 1
    assert found.total.latency == sum(cost.latency for cost in found)  # one layer behind the other
    assert found.table[-1]["layer"] == "total"
    assert str(found).startswith("Estimate, not a report of a tool\n")
    assert found._repr_html_().count("<tr>") == len(found) + 2


def test_branches_run_side_by_side() -> None:
    import keras

    x = keras.Input((4,), name="x")
    long = keras.layers.Dense(2, name="long2")(keras.layers.Dense(8, name="long1")(x))
    short = keras.layers.Dense(2, name="short")(x)
    model = randomise(keras.Model(x, keras.layers.Add(name="sum")([long, short])))
    assert estimate(kconvert.convert_from_keras_model(model)).total.latency == (1 + 2) + (1 + 3) + 1
