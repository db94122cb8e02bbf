"""What a notebook shows of a model, its settings and reports."""

from __future__ import annotations

import copy
import json
import pickle
from html.parser import HTMLParser

import pytest
import yaml

import kconvert
from kconvert.tables import cell, html_table, text_table
from tests.models import MODELS, randomise


class Tags(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_model() -> None:
    import keras

    name = '<img src=x onerror="alert(1)">'
    model = randomise(keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name=name)]))
    shown = Tags(kconvert.convert_from_keras_model(model)._repr_html_())
    assert shown.tags == TABLE
    assert shown.attributes == {"style"}
    assert {name, "Dense", "2", "8", "ap_fixed<16,6,AP_RND,AP_SAT>"} <= set(shown.texts)


@pytest.mark.parametrize("granularity", ["model", "type", "name"])
def test_settings_are_a_dict_that_shows_itself(granularity: str) -> None:
    config = kconvert.config_from_keras_model(MODELS["mlp"](), granularity)
    shown = Tags(config._repr_html_())
    assert shown.tags == TABLE
    assert "Model → Precision → default" in shown.texts
    plain = json.loads(json.dumps(config))
    assert type(plain) is dict
    assert isinstance(config, dict)
    assert config == plain


@pytest.mark.parametrize("write", [yaml.safe_dump, yaml.dump], ids=["safe", "any"])
def test_settings_are_written_as_any_dict(write: object) -> None:
    config = kconvert.config_from_keras_model(MODELS["mlp"](), "name")
    assert write(config) == write(json.loads(json.dumps(config)))  # type: ignore[operator]
    for made in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert yaml.safe_load(write(made)) == config  # type: ignore[operator]


def test_edited_settings_convert() -> None:
    model = MODELS["mlp"]()
    config = kconvert.config_from_keras_model(model, "name")
    config["LayerName"]["fc1"]["Precision"]["weight"] = "ap_fixed<7,1>"
    assert str(kconvert.convert_from_keras_model(model, config)["fc1"].typed("weight")) == "ap_fixed<7,1>"


def test_cells() -> None:
    assert [cell(v) for v in (None, 1234567, 0.000123456, "a", True)] == ["", "1,234,567", "0.0001235", "a", "True"]


def test_text_table() -> None:
    lines = text_table(("name", "number"), [("a\nb", 1), ("c", None), ("d", 1000)]).splitlines()
    assert lines == ["name  number", "----  ------", "a\ufffdb        1", "c", "d      1,000"]
    assert text_table(("name", "number"), []).splitlines() == ["name  number", "----  ------"]


def test_html_table_escapes() -> None:
    shown = Tags(html_table(("<b>",), [("<script>",), ("a&b\u202e",)], "<i>"))
    assert shown.tags == TABLE
    assert {"<b>", "<script>", "a&b\ufffd", "<i>"} <= set(shown.texts)
