"""What the tests of the passes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import kconvert
from kconvert import HLSModel
from kconvert.converters import build_model
from kconvert.optimizers import Pass
from tests import reference


def graph_of(model: Any, config: Any = None) -> HLSModel:
    """Return the graph of a Keras model as it was read."""
    return build_model(kconvert.read_model(model), config)


def run_and_compare(hls_model: HLSModel, passes: Sequence[Pass]) -> None:
    """Run `passes` on an untyped graph and demand that it still means the same."""
    random = np.random.default_rng(0)
    x = [random.normal(size=(7, *v.shape)) * 3 for v in hls_model.inputs]
    x = x if len(x) > 1 else x[0]
    before = reference.run_float(hls_model, x)
    for step in passes:
        step.run(hls_model)
    after = reference.run_float(hls_model, x)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def operations(hls_model: HLSModel) -> dict[str, str]:
    """Return the operation of every node by name, in order, the inputs left out."""
    return {n.name: type(n).__name__ for n in hls_model.nodes if type(n).__name__ != "Input"}
