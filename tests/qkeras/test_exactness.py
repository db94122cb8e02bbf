"""The hardware answers exactly what the quantised model answered in Python.

Keras computes in float32. Where every number on the way is a float32, which :func:`computed_exactly` decides from the
network alone, prediction and Keras must be equal to the last bit. Elsewhere the prediction must equal the integer
evaluation of tests/reference.py. That evaluates the converted graph: it holds the C++ to the graph, and leaves it to
the first kind, and to the tests of quantizers and layers, to hold the graph to QKeras.

``make test-exactness`` runs 2,000 networks; the ordinary suite a tenth of them (KCONVERT_EXACTNESS sets the number).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel
from kconvert.layers import ApplyAlpha, BatchNormalization, Node, Weighted
from tests import reference
from tests.qkeras.nets import Choice, build, choices, samples

COUNT = int(os.environ.get("KCONVERT_EXACTNESS", "200"))
CHUNK = 50
FLOAT_BITS = 22  # of the 24 that float32 has: an activation's own sums take up to two more


@pytest.fixture(scope="session")
def qkeras() -> Any:
    return pytest.importorskip("qkeras")


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_random_networks_answer_as_keras_does(qkeras: Any, first: int, record_property: Any) -> None:
    networks = choices(min(CHUNK, COUNT - first), first)
    exact = sum(map(_check, networks))
    record_property("networks", len(networks))
    record_property("equal to Keras", exact)  # shown at the end of the run
    assert exact > len(networks) // 4


def _check(choice: Choice) -> bool:
    return is_exact(choice, build(choice))


def is_exact(choice: Choice, model: Any) -> bool:
    """Convert and compare; return whether the comparison was with Keras itself."""
    config = kconvert.config_from_keras_model(model, granularity="name")
    hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    x = samples(model.input_shape[1:], choice.seed)
    with pytest.warns(kconvert.errors.PrecisionWarning, match="outside"):
        answers = hls_model.predict(x)
    (wanted,), _ = reference.run(hls_model, x)
    assert np.array_equal(answers, wanted), f"{choice} differs from the integers"
    if not computed_exactly(hls_model, model):
        return False
    quantised = hls_model.inputs[0].known_type().quantize(x)
    keras = np.asarray(model(quantised.astype(np.float32), training=False))
    assert np.array_equal(answers, keras), f"{choice} differs from Keras by {np.abs(answers - keras).max()}"
    return True


def computed_exactly(hls_model: HLSModel, model: Any) -> bool:
    """True if no number that Keras computes on the way needs rounding to be a float32."""
    return all(_quantisers_are_exact(layer) for layer in model.layers) and all(_sum_is_exact(n) for n in hls_model)


def _quantisers_are_exact(layer: Any) -> bool:
    """Quantizers return x + (q - x), which in float32 is not always q."""
    quantizers = getattr(layer, "quantizers", [])
    for quantizer, array in zip(quantizers, layer.get_weights(), strict=False):
        value = np.asarray(quantizer(array)).astype(np.float64)
        scale = np.asarray(quantizer.scale, dtype=np.float64)
        steps = value / scale * 2.0**16
        if not np.array_equal(steps, np.round(steps)) or np.any(np.frexp(scale)[0] != 0.5):
            return False
    return True


def _sum_is_exact(node: Node) -> bool:
    if isinstance(node, Weighted):
        source = node.in_type()
        largest = max(abs(source.raw_min), source.raw_max)
        weight = np.abs(node.constants()["weight"].raw.astype(np.float64)).reshape(-1, node.fan_out).sum(axis=0)
        accum = (weight * largest).max() * 2.0 ** -(source.fraction + node.typed("weight").fraction)
        bias = np.abs(node.bias).max()
        finest = max(source.fraction + node.typed("weight").fraction, node.typed("bias").fraction)
        return bool((accum + bias) * 2.0**finest < 2.0**FLOAT_BITS)
    if isinstance(node, BatchNormalization | ApplyAlpha):
        kind = node.output.known_type()
        return bool(np.all(np.frexp(node.scale)[0] == 0.5)) and kind.width <= FLOAT_BITS
    return True
