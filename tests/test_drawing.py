"""The graph as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import kconvert
from kconvert.drawing import BOX, SPACE, Layout, as_read, layout, svg
from kconvert.errors import InputError, WriteError
from tests.models import MODELS, randomise

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)",
    '"onmouseover="alert(1)',
    "a&amp;b",
    "new\nline\u202e",
    "long_" * 30,
    "$x_{1}^",
    "日本語",
]


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def overlaps(found: Layout) -> list[tuple[Any, Any]]:
    boxes = found.boxes
    return [
        (a.node, b.node)
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
        if a.rank == b.rank and abs(a.x - b.x) < (a.width + b.width) / 2 + SPACE / 2
    ]


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_a_place_of_its_own(name: str) -> None:
    hls_model = kconvert.convert_from_keras_model(MODELS[name]())
    for graph in (hls_model, as_read(hls_model)):
        found = layout(graph)
        assert [box.node for box in found.boxes] == graph.nodes
        assert not overlaps(found)
        assert len(found.lines) == sum(len(node.inputs) for node in graph)
        for line in found.lines:
            assert [place.rank for place in line] == list(range(line[0].rank, line[-1].rank + 1))
        for box in found.boxes:
            assert box.width / 2 <= box.x <= found.width - box.width / 2
            assert box.y + BOX <= found.height


def test_a_long_line_passes_beside_the_boxes() -> None:
    found = layout(kconvert.convert_from_keras_model(MODELS["residual_two_inputs"]()))
    passing = [place for line in found.lines for place in line[1:-1]]
    assert passing
    for place in passing:
        for box in found.boxes:
            assert box.rank != place.rank or abs(box.x - place.x) > box.width / 2


def test_picture_shows_names_operations_shapes_and_types() -> None:
    model = MODELS["conv2d_net"]()
    hls_model = kconvert.convert_from_keras_model(model)
    after, before = texts(hls_model.plot()), texts(hls_model.plot(when="before"))
    assert {"conv1", "Conv 9\u21924 = bn1", "10\u00d710\u00d74  fixed<37,17>", "output_softmax"} <= set(after)
    assert {"conv1", "bn1", "BatchNormalization", "10\u00d710\u00d74", "Conv 24\u21926 + Relu"} <= set(before)
    assert "output" in after[-2:]


def test_names_are_text(tmp_path: Path) -> None:
    import keras

    x = first = keras.Input((2,), name="in")
    for name in HOSTILE:
        x = keras.layers.Dense(2, name=name)(x)
    hls_model = kconvert.convert_from_keras_model(randomise(keras.Model(first, x)))
    picture = hls_model.plot()
    root = ElementTree.fromstring(picture)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "title", "rect", "path", "g", "text"}
    assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)
    shown = texts(picture)
    assert {"<script>alert(1)", '"onmouseover="alert(1)', "a&amp;b", "new\ufffdline\ufffd"} <= set(shown)
    assert max(map(len, shown)) < 60
    with pytest.warns(UserWarning, match="Glyph"):  # matplotlib's own font has no Japanese
        hls_model.plot(tmp_path / "graph.png")


@pytest.mark.parametrize("suffix", ["svg", "png", "PNG"])
def test_files(tmp_path: Path, suffix: str) -> None:
    hls_model = kconvert.convert_from_keras_model(MODELS["mlp"]())
    path = tmp_path / f"graph.{suffix}"
    picture = hls_model.plot(str(path), when="before")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") if suffix.lower() == "png" else data.decode() == picture


def test_wrong_arguments(tmp_path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(MODELS["mlp"]())
    with pytest.raises(InputError, match="did you mean 'before'"):
        hls_model.plot(when="befor")
    with pytest.raises(InputError, match=r"'graph\.pdf': its name must end in \.svg or \.png"):
        hls_model.plot("graph.pdf")
    for suffix in ("svg", "png"):
        with pytest.raises(WriteError, match="cannot write"):
            hls_model.plot(tmp_path / "nowhere" / f"graph.{suffix}")


def test_graph_without_layers() -> None:
    import keras

    x = keras.Input((3,), name="x")
    hls_model = kconvert.convert_from_keras_model(keras.Model(x, keras.layers.Flatten(name="same")(x)))
    assert "x" in texts(svg(layout(hls_model)))
