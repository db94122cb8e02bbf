"""Measure every case of `sections`; ``python -m tests.layers.layer_table > docs/layers.md`` writes the page."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import kconvert
from kconvert.layers import Input, Value, View
from kconvert.streams import form_of
from tests import reference
from tests.layers.common import as_list, convert, keras_answers
from tests.layers.sections import SECTIONS, TOKENS, Inputs, refused
from tests.models import randomise

PRECISION = "fixed<32,14>"
STEP = 2.0**-18
SAMPLES = 20
FINEST = -20
"""Exponent of a difference that says nothing: float32 has no better answers."""


@dataclass(frozen=True)
class Measured:
    """What a case gave.

    Attributes:
        layer: Name of the layer.
        options: What of it the case is about.
        form: How it works in io_stream.
        error: Largest difference from Keras.
        exact: Whether io_parallel gives the bits of the reference.
        same: Whether io_stream gives those of io_parallel.
    """

    layer: str
    options: str
    form: str
    error: float
    exact: bool
    same: bool


@functools.cache
def measured(section: str) -> list[Measured]:
    """Return the cases of a section, converted both ways and run on the same samples."""
    import keras

    inputs = Inputs()
    cases = [(layer, options, as_list(y)) for layer, options, y in SECTIONS[section].build(inputs)]
    model = randomise(keras.Model(list(inputs.made.values()), [y for *_, ys in cases for y in ys]))
    config = kconvert.config_from_keras_model(model, granularity="name", default_precision=PRECISION)
    x = [_samples(name, tensor.shape[1:], i) for i, (name, tensor) in enumerate(inputs.made.items())]
    given = x if len(x) > 1 else x[0]
    parallel, stream = (convert(model, config, io_type=io_type) for io_type in ("io_parallel", "io_stream"))
    results = zip(
        parallel.outputs,
        keras_answers(model, x),
        as_list(parallel.predict(given)),
        as_list(stream.predict(given)),
        reference.run(parallel, given)[0],
        stream.outputs,
        strict=True,
    )
    found = []
    for layer, options, ys in cases:
        parts = [next(results) for _ in ys]
        found.append(
            Measured(
                layer,
                options,
                _form(streamed for *_, streamed in parts),
                max(float(np.abs(keras - ours).max()) for _, keras, ours, *_ in parts),
                all(np.array_equal(ours, exact) for _, _, ours, _, exact, _ in parts),
                all(np.array_equal(ours, streamed) for _, _, ours, streamed, *_ in parts),
            )
        )
    return found


def _samples(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if name == "tokens":
        return random.integers(TOKENS, size=(SAMPLES, *shape)).astype(float)
    return np.round(random.uniform(-4, 4, (SAMPLES, *shape)) / STEP) * STEP


_FORMS = ("free", "position", "stream", "whole")


def _form(values: Iterator[Value]) -> str:
    """Return the form of the nodes that make `values`; of several, that which keeps most of a tensor."""
    forms, nodes = {"free"}, [value.producer for value in values]
    while nodes:
        node = nodes.pop()
        nodes += [value.producer for value in node.inputs]
        if not isinstance(node, Input | View):
            forms.add(form_of(node))
    return max(forms, key=_FORMS.index)


# ***** the page *****

_INTRODUCTION = """# Layers

Every layer of Keras that converts, as measured by the tests (`tests/layers/sections.py` has the cases; `make docs`
writes this page). Each case is a layer in a small model with random weights, converted with
`default_precision="fixed<32,14>"` and all other settings as they are, and run on 20 samples between -4 and 4. Keras
computes in float32.

* **io_stream** says what the layer keeps there: `position` one position of its input at a time, `stream` a few rows, or
  none (a line buffer, running sums), `whole` the whole tensor; `free` is no hardware at all.
  [architecture.md](architecture.md#streams) has more.
* **largest error** is the largest difference from Keras, rounded up to a power of two. The step of the types is 2^-18;
  2^-20 stands for everything smaller.
* **exact** says that the answers are those of the integer reference (`tests/reference.py`) to the bit, in both.
"""

_REFUSED = """## What is refused

Each is an `UnsupportedLayerError` that names the layer and says:
"""

_HEADER = "| layer | options covered | io_parallel | io_stream | largest error | exact |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """A row of the page: the cases of one layer that have one form."""

    layer: str
    options: str
    form: str
    error: float
    exact: bool

    def __str__(self) -> str:
        """Return it as Markdown."""
        cells = (self.layer, self.options, "yes", self.form, power_of_two(self.error), "yes" if self.exact else "NO")
        return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def rows(section: str) -> list[Row]:
    """Return the rows of a section, layers in the order of their first cases."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for case in measured(section):
        groups.setdefault((case.layer, case.form), []).append(case)
    return [
        Row(
            layer,
            "; ".join(dict.fromkeys(case.options for case in cases if case.options)),
            form,
            max(case.error for case in cases),
            all(case.exact and case.same for case in cases),
        )
        for (layer, form), cases in groups.items()
    ]


def power_of_two(error: float) -> str:
    """Return the power of two that is not below an error; one that may be Keras' own is `FINEST`."""
    return f"2^{max(math.ceil(math.log2(error)), FINEST)}" if error else "0"


def section_text(name: str) -> str:
    """Return one section of the page."""
    section = SECTIONS[name]
    note = f"{section.note}\n\n" if section.note else ""
    return "\n".join([f"## {section.title}\n", f"{note}{_HEADER}", *map(str, rows(name))]) + "\n"


def refusals_text() -> str:
    """Return the last section of the page."""
    lines = ["| what | the message says |\n|---|---|", *(f"| {what} | {message} |" for what, message, _ in refused())]
    return "\n".join([_REFUSED, *lines]) + "\n"


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *map(section_text, SECTIONS), refusals_text()])


if __name__ == "__main__":
    sys.stdout.write(page())
