"""Every layer, both ways: near Keras, equal to the reference, refused clearly; and docs/layers.md says so."""

from __future__ import annotations

import re

import pytest

import kconvert
from kconvert.converters import registry
from kconvert.errors import UnsupportedLayerError
from tests.conftest import ROOT
from tests.layers.layer_table import FINEST, STEP, measured, refusals_text, section_text
from tests.layers.sections import SECTIONS, Inputs, refused

# Layers and names of Keras 2 alone, the input, and what stands for operations; each has tests of its own.
_ELSEWHERE = {"InputLayer", "Operation", "ThresholdedReLU", "ReLU6", "exp", "keras 2>hard_sigmoid"}
_ERROR = re.compile(r"2\^(-?\d+)|(?<=\| )0(?= \|)")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_layer_is_near_keras_and_exact_and_as_the_page_says(section: str) -> None:
    """One test, so that one process measures a section."""
    bound = SECTIONS[section].bound * STEP
    wrong = [case for case in measured(section) if case.error > bound or not (case.exact and case.same)]
    assert not wrong, f"more than {bound} from Keras, or not equal: {wrong}"
    _assert_up_to_date(section)


def _assert_up_to_date(section: str) -> None:
    """Errors may be a power of two beside those of the page: Keras rounds in float32, as each machine does it."""
    page = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    title = f"## {SECTIONS[section].title}\n"
    assert title in page, "run: make docs"
    there = title + page.partition(title)[2].partition("\n## ")[0]
    here = section_text(section)
    assert _ERROR.sub("", there).split() == _ERROR.sub("", here).split(), "run: make docs"
    exponents = [[int(found[1] or FINEST - 1) for found in _ERROR.finditer(text)] for text in (there, here)]
    assert all(abs(a - b) <= 1 for a, b in zip(*exponents, strict=True)), "run: make docs"


def test_the_page_ends_with_what_is_refused() -> None:
    assert (ROOT / "docs" / "layers.md").read_text(encoding="utf-8").endswith(f"\n{refusals_text()}"), "run: make docs"


def test_what_is_refused_says_so() -> None:
    for _, message, model in refused():
        with pytest.raises(UnsupportedLayerError, match=re.escape(message)):
            kconvert.convert_from_keras_model(model)


def test_every_reader_of_keras_has_a_case() -> None:
    registry.load_readers()
    cases = [case for section in SECTIONS.values() for case in section.build(Inputs())]
    covered = {word for layer, options, _ in cases for word in (layer, *re.findall(r"\w+", f"{layer} {options}"))}
    for readers in (registry._readers, registry._activations):
        ours = {name for name, reader in readers.items() if reader.__module__.startswith("kconvert.converters.keras.")}
        assert ours - _ELSEWHERE <= covered
