"""Readers that somebody else registers."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

REPLACE = """
from kconvert.converters import registry
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.layers import Identity
import kconvert

@registry.reads("Dropout", "MyLayer")
def mine(layer, inputs):
    return Identity(name="mine_" + layer.name)

x = LayerSpec("InputLayer", "x", {"batch_shape": [None, 3]}, ((),))
a = LayerSpec("Dropout", "a", {}, ((TensorRef("x"),),))
b = LayerSpec("MyLayer", "b", {}, ((TensorRef("a"),),))
spec = ModelSpec("m", (x, a, b), (TensorRef("x"),), (TensorRef("b"),))
print([n.name for n in kconvert.converters.build_model(spec)], "Dense" in registry.supported_layers())
"""


def test_a_registered_reader_replaces_ours_before_the_first_conversion_too() -> None:
    done = subprocess.run([sys.executable, "-c", REPLACE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['x', 'mine_a', 'mine_b'] True", done.stderr
