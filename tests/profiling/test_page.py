"""The report as one HTML page: what is in it, that it needs nothing else, and that names stay text."""

from __future__ import annotations

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import InputError, ModelError, WriteError
from tests.models import randomise
from tests.profiling.browser import browser
from tests.test_report import CSYNTH_PLACE, VITIS_CSYNTH, put

HOSTILE = ["<script>window.hit=1", "<img src=x onerror=window.hit=1>", '"onmouseover="window.hit=1', "{{ 7*7 }}"]
SECTIONS = ["overview", "network", "differences", "ranges", "checks", "roc", "hardware", "settings"]


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def ids(self, tag: str) -> list[str | None]:
        return [attributes.get("id") for name, attributes in self.elements if name == tag]


LONG = "</title></script><script>window.hit=1".replace("/", "\u2215") + "m" * 200


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A report of a classifier whose layers, classes and answers have hostile names."""
    import keras

    x = first = keras.Input((4,), name="features")
    for name in HOSTILE:
        x = keras.layers.Dense(4, name=name)(x)
    x = keras.layers.Activation("softmax", name=LONG)(x)
    model = randomise(keras.Model(first, x, name="net"))
    folder = tmp_path_factory.mktemp("report")
    hls_model = kconvert.convert_from_keras_model(model, output_dir=folder / "project")
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(200, 4))
    answers = rng.random((200, 4))
    path = hls_model.report(
        samples,
        rng.integers(0, 4, 200),
        folder / "report.html",
        others={"</script><script>window.hit=1</script>": answers},
        labels=["<b>", "</script>", "c", "d"],
    )
    assert path == folder / "report.html"
    return path, hls_model


def test_page_needs_nothing_else(written: tuple[Path, Any]) -> None:
    path, _ = written
    page = Page(path)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "url(" not in text
    assert "@import" not in text
    assert path.stat().st_size < 3_000_000


def test_names_are_text(written: tuple[Path, Any]) -> None:
    path, _ = written
    page = Page(path)
    assert [tag for tag, _ in page.elements].count("script") == 1
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    for name in HOSTILE:
        assert name in page.text
    assert "49" not in re.findall(r"\b\d+\b", page.text.split("{{ 7*7 }}")[0][-20:])


def test_sections(written: tuple[Path, Any]) -> None:
    path, hls_model = written
    page = Page(path)
    assert page.ids("section") == SECTIONS
    assert [tag for tag, _ in page.elements].count("svg") == 2  # before and after
    for expected in ("Keras", "hls", "accuracy", "Estimate, not a report of a tool", "all defaults", "xcvu13p"):
        assert expected in page.text
    for node in hls_model:
        assert str(node.result_type) in page.text
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 4
    assert all(attributes["alt"] for attributes in images)


def test_in_a_browser(written: tuple[Path, Any]) -> None:
    """Click through all sections; nothing of what a name holds has run."""
    path, _ = written
    shown = "return [...document.querySelectorAll('section')].filter(s => s.offsetParent).map(s => s.id)"
    cells = "return Math.max(0, ...[...document.querySelectorAll('td')].map(cell => cell.offsetWidth))"
    fits = """return [...document.querySelector('.picture svg').querySelectorAll('g')].every(box => {
        const room = box.querySelector('rect').getBBox().width;
        return [...box.querySelectorAll('[text-anchor=middle]')].every(text => text.getBBox().width < room) })"""
    with browser() as page:
        page.open(path)
        assert page.run(shown) == ["overview"]
        for section in SECTIONS[::-1]:
            page.click(f"#tab-{section}")
            assert page.run(shown) == [section]
            assert page.run("return document.querySelector('[aria-selected=true]').id") == f"tab-{section}"
            assert page.run("return document.documentElement.scrollWidth <= innerWidth")
            assert page.run(cells) < 900  # a long name leaves room for the other columns
            width, height = struct.unpack(">II", page.screenshot()[16:24])
            assert width > 800
            assert height > 500
        page.click("#tab-network")
        assert page.run(fits)
        assert not page.run("return document.querySelectorAll('.picture svg')[1].checkVisibility()")
        page.click("#network summary")
        assert page.run("return document.querySelectorAll('.picture svg')[1].checkVisibility()")
        assert page.run("return [...document.images].every(i => i.complete && i.naturalWidth > 300)")
        assert page.run("return window.hit === undefined && document.scripts.length === 1")
        assert page.run("return document.querySelectorAll('[onerror],[onmouseover],b').length") == 0
        assert page.run("return performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))")
        assert page.run("return document.title") == "myproject: net"
        # the policy of the page: no script but its own, not even one that got in
        page.run("const s = document.createElement('script'); s.text = 'window.hit = 2'; document.body.append(s)")
        assert page.run("return window.hit === undefined")
        page.open(path, "#checks")
        assert page.run(shown) == ["checks"]


def small(*names: str) -> Any:
    """A model of one dense layer for each input, and as many outputs."""
    import keras

    inputs = [keras.Input((3,), name=name) for name in names]
    outputs = [keras.layers.Dense(2, name=f"{name}_out")(x) for name, x in zip(names, inputs, strict=True)]
    return randomise(keras.Model(inputs, outputs if len(names) > 1 else outputs[0], name="small"))


def test_vendor_reports_take_the_place_of_nothing(tmp_path: Path) -> None:
    model = small("x")
    hls_model = kconvert.convert_from_keras_model(model, output_dir=tmp_path, project_name="net")
    x = np.random.default_rng(0).normal(size=(20, 3))
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    text = Page(hls_model.report(x, path=tmp_path / "a.html")).text
    assert "target clock period [ns]" in text
    assert "4,600" in text
    path = put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH[:600])
    cut = Page(hls_model.report(x, path=tmp_path / "b.html")).text
    assert f"cannot read the report {path}" in cut
    assert "Estimate, not a report of a tool" in cut


def test_model_from_a_file_has_no_keras_to_compare_with(tmp_path: Path) -> None:
    model = small("x")
    model.save(tmp_path / "mlp.keras")
    hls_model = kconvert.convert_from_keras_model(tmp_path / "mlp.keras")
    x = np.random.default_rng(0).normal(size=(20, 3))
    page = Page(hls_model.report(x, path=tmp_path / "a.html"))
    assert "differences" not in page.ids("section")
    assert "roc" not in page.ids("section")
    page = Page(hls_model.report(x, path=tmp_path / "a.html", keras_model=model))
    assert "differences" in page.ids("section")


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(30, 3)), "b": rng.normal(size=(30, 3))}
    y = {"a_out": rng.integers(0, 2, 30), "b_out": rng.normal(size=(30, 2))}
    page = Page(kconvert.convert_from_keras_model(small("a", "b")).report(x, y, tmp_path / "a.html"))
    assert page.ids("section") == SECTIONS
    titles = [line.strip() for line in page.text.splitlines()]
    assert {"output", "accuracy", "mean AUC", "rms error"} <= set(titles)


def test_wrong_arguments(tmp_path: Path) -> None:
    model = small("x")
    hls_model = kconvert.convert_from_keras_model(model)
    x = np.zeros((3, 3))
    with pytest.raises(InputError, match="y holds 2 answers"):
        hls_model.report(x, np.zeros(2), tmp_path / "a.html")
    with pytest.raises(InputError, match=r"others\['tflite'\].*\(3, 4\).*\(3, 2\)"):
        hls_model.report(x, path=tmp_path / "a.html", others={"tflite": np.zeros((3, 4))})
    with pytest.raises(InputError, match="no samples"):
        hls_model.report(x[:0], path=tmp_path / "a.html")
    with pytest.raises(ModelError, match="live"):
        hls_model.report(x, path=tmp_path / "a.html", keras_model="model.keras")
    assert not list(tmp_path.iterdir())


def test_failing_leaves_the_old_page(tmp_path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(small("x"))
    x = np.zeros((3, 3))
    with pytest.raises(WriteError, match="cannot write the report"):
        hls_model.report(x, path=tmp_path / "nowhere" / "a.html")
    path = hls_model.report(x, path=tmp_path / "a.html")
    before = path.read_bytes()
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(WriteError, match=r"folder\.html"):
        hls_model.report(x, path=tmp_path / "folder.html")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "folder.html"]
