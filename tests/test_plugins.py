"""A package outside of kconvert adds a layer with everything it takes, by the public calls alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import config, optimizers, plugins
from kconvert.converters import registry
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ConfigError, ConfigWarning
from kconvert.optimizers import PIPELINE, add_pass, pipeline, whole

PLUGIN = '''
from dataclasses import dataclass

from kconvert.config import add_setting
from kconvert.converters.registry import reads
from kconvert.layers import Node
from kconvert.optimizers import add_pass, rewrite
from kconvert.plugins import add_templates


@dataclass(eq=False, kw_only=True)
class Shift(Node):
    """``y = x + offset * times``."""

    offset: int
    times: int = 1
    tunables = frozenset({"times"})
    template = "shift"
    kernel = "nnet_shift.h"

    def infer_types(self, default):
        self.result_type = self.result_type or self.in_type() + self.in_type()


@reads("Shift")
def shift(layer, inputs):
    return Shift(name=layer.name, offset=layer.config["offset"])


@rewrite(Shift)
def double_the_shift(model, node):
    if node.offset % 2 == 0:
        return False
    node.offset *= 2
    return True


add_pass(double_the_shift, before="drop_identities")
add_setting("Times", "times", lambda value: value if value in (1, 2, 3) else None, "1, 2 or 3")
add_templates(__name__)
'''
TEMPLATE = """
{% import "layers/_shared.j2" as shared %}
{% macro config(n) %}
struct {{ n.cpp }}_config {
    static const int offset = {{ n.offset * n.times }};
    static const unsigned size = {{ n.output.size }};
    {{ shared.types(n) | indent }}
};
{% endmacro %}
{% macro call(n, x, y) -%}
nnet::shift<{{ n.cpp }}_config>({{ x[0] }}, {{ y }});
{%- endmacro %}
"""
KERNEL = """
#ifndef NNET_SHIFT_H_
#define NNET_SHIFT_H_
#include "nnet_common.h"
namespace nnet {
template <class CONFIG_T, class X, class Y> void shift(const X x[], Y y[]) {
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
        y[i] = x[i] + ap_int<16>(CONFIG_T::offset);
    }
}
}
#endif
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a plugin and take it out again."""
    write_plugin(tmp_path)
    registry.load_readers()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_template_packages", ["kconvert"])
    monkeypatch.setattr(optimizers, "_added", [])
    monkeypatch.setattr(config, "_OPTIONS", dict(config._OPTIONS))
    monkeypatch.setattr(registry, "_readers", dict(registry._readers))
    yield importlib.import_module("shifting")
    del sys.modules["shifting"]


def write_plugin(folder: Path, name: str = "shifting") -> None:
    for path, text in {
        "__init__.py": PLUGIN,
        "templates/layers/shift.j2": TEMPLATE,
        "templates/kernels/nnet_shift.h": KERNEL,
    }.items():
        file = folder / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def model() -> ModelSpec:
    layers = (
        LayerSpec("InputLayer", "x", {"batch_shape": [None, 3]}, calls=((),)),
        LayerSpec("Shift", "up", {"offset": 3}, calls=((TensorRef("x"),),)),
    )
    return ModelSpec("net", layers, (TensorRef("x"),), (TensorRef("up"),))


def test_a_layer_of_a_plugin_converts_compiles_and_is_written(plugin: Any, tmp_path: Path) -> None:
    settings = {"LayerName": {"up": {"Times": 2}}}
    hls_model = kconvert.convert_from_keras_model(model(), settings, output_dir=tmp_path / "prj")
    assert hls_model["up"].offset == 6  # type: ignore[attr-defined]
    hls_model.compile()
    x = np.array([[0.5, -1.25, 7.0]])
    assert np.array_equal(hls_model.predict(x), x + 12)
    folder = hls_model.write()
    assert (folder / "firmware/nnet_utils/nnet_shift.h").read_text() == KERNEL
    assert kconvert.config_from_keras_model(model(), "name")["LayerName"]["up"]["Times"] == 1


def test_its_setting_is_checked(plugin: Any) -> None:
    with pytest.raises(ConfigError, match=r"LayerName → up → Times: 4 is not allowed; give 1, 2 or 3"):
        kconvert.convert_from_keras_model(model(), {"LayerName": {"up": {"Times": 4}}})


def test_other_models_get_no_kernels_of_it(plugin: Any, tmp_path: Path) -> None:
    plain = ModelSpec("net", model().layers[:1], (TensorRef("x"),), (TensorRef("x"),))
    folder = kconvert.convert_from_keras_model(plain, output_dir=tmp_path / "prj").write()
    assert not (folder / "firmware/nnet_utils/nnet_shift.h").exists()


def test_names_that_are_taken(plugin: Any, tmp_path: Path) -> None:
    write_plugin(tmp_path, "again")
    (tmp_path / "again" / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match=r"templates/layers/shift.j2 of 'again' has the name of a file of 'shifting'"):
        plugins.add_templates("again")
    with pytest.raises(ConfigError, match="package 'email' has no folder 'templates'"):
        plugins.add_templates("email")
    with pytest.raises(ConfigError, match="no pass 'infer_type'; did you mean 'infer_types'"):
        add_pass(plugin.double_the_shift, before="infer_type")

    @whole
    def infer_types(model: Any) -> bool:
        """Has a name that is taken."""
        return False

    with pytest.raises(ConfigError, match="another pass is called 'infer_types'"):
        add_pass(infer_types)
    with pytest.raises(ConfigError, match="'ReuseFactor' has another meaning"):
        config.add_setting("ReuseFactor", "other", bool, "anything")


def test_the_pipeline_without_plugins_is_the_one_that_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "_added", [])
    assert pipeline() == PIPELINE


INSTALLED = """
import warnings, kconvert
from kconvert.converters.registry import supported_layers
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("Shift" in supported_layers(), *[f"{w.category.__name__}: {w.message}" for w in caught])
"""


def test_an_installed_plugin_is_found_and_a_broken_one_left_out(tmp_path: Path) -> None:
    write_plugin(tmp_path)
    for name, module in (("shifting", "shifting"), ("broken", "not_there")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kconvert.plugins]\n{name} = {module}\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{INSTALLED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True ")
    assert f"{ConfigWarning.__name__}: the plugin 'broken' (not_there) cannot be loaded" in done.stdout
