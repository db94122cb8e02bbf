"""What the tests of all layers share: type settings, inputs that hit every corner of a type, and the comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType, HLSModel
from kconvert.errors import PrecisionWarning
from tests import reference

# Precision roles by setting; "input" is the result of the input layers and "rest" every role not named. None: defaults.
SETTINGS: Mapping[str, Mapping[str, str] | None] = {
    "default": None,
    "narrow-wrap": {"rest": "ap_fixed<6,3>"},
    "accum-saturates": {
        "input": "ap_fixed<10,4,AP_RND,AP_SAT>",
        "accum": "ap_fixed<10,5,AP_RND,AP_SAT>",
        "result": "ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>",
        "rest": "ap_fixed<8,2>",
    },
    "unsigned": {
        "input": "ap_ufixed<9,3>",
        "accum": "auto",
        "result": "ap_ufixed<7,3,AP_RND_INF,AP_SAT>",
        "rest": "ap_fixed<7,1,AP_TRN_ZERO,AP_SAT_ZERO>",
    },
    "8-bit": {"accum": "auto", "rest": "ap_fixed<8,3,AP_RND_ZERO,AP_SAT>"},
    "24-bit": {"accum": "auto", "rest": "ap_fixed<24,10,AP_RND_MIN_INF,AP_WRAP>"},
    "wide": {
        "accum": "ap_fixed<56,20,AP_RND,AP_SAT>",
        "weight": "ap_fixed<20,2>",
        "scale": "ap_fixed<20,2>",
        "slope": "ap_fixed<20,2>",
        "rest": "ap_fixed<40,12>",
    },
    "no-integer-bits": {
        "input": "ap_fixed<8,-2,AP_RND,AP_SAT>",
        "accum": "ap_fixed<14,0>",
        "result": "ap_fixed<9,-1,AP_TRN,AP_SAT_ZERO>",
        "rest": "ap_fixed<6,-1,AP_RND,AP_SAT>",
    },
    "32-bit": {
        "accum": "ap_fixed<48,20>",
        "weight": "ap_fixed<28,8,AP_RND,AP_SAT>",
        "scale": "ap_fixed<28,8,AP_RND,AP_SAT>",
        "slope": "ap_fixed<28,8,AP_RND,AP_SAT>",
        "rest": "ap_fixed<32,14,AP_RND,AP_SAT>",
    },
}
# Which of them keep enough for the answers to be Keras' own.
FAITHFUL = {"default": None, "32-bit": 1e-3}
# The one that is converted with streams between the layers, too.
STREAMED = "default"
_TABLE_KEYS = ("table_t", "exp_table_t", "inv_table_t")

every_setting = pytest.mark.parametrize("setting", SETTINGS)
# For layers that multiply nothing: fewer ways to go wrong.
some_settings = pytest.mark.parametrize("setting", ["default", "narrow-wrap", "unsigned", "wide", "no-integer-bits"])


def typed_config(model: Any, setting: str, **options: Any) -> dict[str, Any]:
    """Return the configuration of `model` with every type as `setting` says, and `options` where they apply."""
    config = kconvert.config_from_keras_model(model, granularity="name")
    inputs = {ref.layer for ref in kconvert.read_model(model).inputs}
    types = SETTINGS[setting]
    for name, entry in config["LayerName"].items():
        for role in entry["Precision"] if types is not None else ():
            wanted = types.get("input", types.get("rest")) if name in inputs else types.get(role, types["rest"])
            entry["Precision"][role] = wanted
        entry.update({key: value for key, value in options.items() if key in entry})
    return config


def samples(kind: FixedType, *shape: int, seed: int = 0) -> np.ndarray:
    """Return inputs that quantisation meets in every way: on the grid, on ties, next to them, and beyond the range."""
    random = np.random.default_rng(seed)
    low, high = max(kind.min, -6.0), min(kind.max, 6.0)
    x = random.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), shape)
    grid = np.round(x / kind.step) * kind.step
    kinds = random.integers(4, size=shape)
    return np.choose(kinds, [x, grid, grid + kind.step / 2, grid + kind.step * 0.499])


def convert(
    model: Any, config: Mapping[str, Any] | None = None, folder: Path | str = "unused", **options: Any
) -> HLSModel:
    """Convert and compile; the tests' types do not hold all weights and inputs, and that is no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        hls_model = kconvert.convert_from_keras_model(model, config, output_dir=folder, **options)
        hls_model.compile()
    return hls_model


def as_list(x: Any) -> list[np.ndarray]:
    return list(x) if isinstance(x, list | tuple) else [x]


def inputs_of(hls_model: HLSModel, count: int = 21) -> list[np.ndarray]:
    """Return `count` samples for every input; 21 fill one pack of lanes and leave the next ragged."""
    return [samples(v.known_type(), count, *v.shape, seed=i) for i, v in enumerate(hls_model.inputs)]


def assert_exact(hls_model: HLSModel, x: list[np.ndarray]) -> list[np.ndarray]:
    """Demand that ``predict`` and every entry of ``trace`` are the reference's, to the bit; returns the outputs."""
    given = x if len(x) > 1 else x[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        outputs, trace = as_list(hls_model.predict(given)), hls_model.trace(given)
    expected, expected_trace = reference.run(hls_model, given)
    assert list(trace) == list(expected_trace)
    for name, array in expected_trace.items():
        assert trace[name].shape == array.shape
        different = np.argwhere(trace[name] != array)
        assert not len(different), (
            f"{name}: {len(different)} of {array.size} values differ, the first at {different[0]}: "
            f"{trace[name][tuple(different[0])]!r} instead of {array[tuple(different[0])]!r}\n{hls_model}"
        )
    for output, array in zip(outputs, expected, strict=True):
        assert np.array_equal(output, array)
    return outputs


def assert_same_in_streams(hls_model: HLSModel, model: Any, config: Any, count: int = 21) -> HLSModel:
    """Demand that `model` answers with streams between its layers as `hls_model` does; returns the one with streams."""
    streams = convert(model, config, io_type="io_stream")
    x = inputs_of(hls_model, count)
    given = x if len(x) > 1 else x[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        pairs = [(as_list(m.predict(given)), m.trace(given)) for m in (hls_model, streams)]
    (outputs, trace), (streamed, streamed_trace) = pairs
    for output, other in zip(outputs, streamed, strict=True):
        assert np.array_equal(output, other)
    assert list(trace) == list(streamed_trace)
    for name, array in trace.items():
        assert np.array_equal(array, streamed_trace[name]), name
    return streams


def check_layers(model: Any, setting: str, tolerance: float, **options: Any) -> HLSModel:
    """Convert `model` with the types of `setting`, compare with the reference, and with Keras where types are fine.

    Args:
        model: Keras model whose layers are the ones under test, most of them outputs.
        setting: Key of `SETTINGS`.
        tolerance: Largest difference to Keras with untouched defaults, for inputs on the grid of their type.
        options: Other settings, for the layers that have them.
    """
    config = typed_config(model, setting, **options)
    hls_model = convert(model, config)
    assert_exact(hls_model, inputs_of(hls_model))
    if setting == STREAMED:
        assert_same_in_streams(hls_model, model, config)
    if setting in FAITHFUL:
        bound = FAITHFUL[setting] or tolerance
        x = [
            v.known_type().quantize(np.clip(a, -4, 4))
            for v, a in zip(hls_model.inputs, inputs_of(hls_model), strict=True)
        ]
        answers = as_list(hls_model.predict(x if len(x) > 1 else x[0]))
        for name, ours, theirs in zip(model.output_names, answers, keras_answers(model, x), strict=True):
            assert ours.shape == theirs.shape, name
            assert np.abs(ours - theirs).max() <= bound, name
    return hls_model


def check_with_32_bits(model: Any, bound: float) -> None:
    """Demand that `model`, everything in it ``fixed<32,14>``, is exact, and no farther than `bound` from Keras."""
    hls_model = convert(model, kconvert.config_from_keras_model(model, "name", default_precision="fixed<32,14>"))
    x = inputs_of(hls_model, 5)
    x = [v.known_type().quantize(np.clip(a, -2, 2)) for v, a in zip(hls_model.inputs, x, strict=True)]
    answers = assert_exact(hls_model, x)
    for name, ours, theirs in zip(model.output_names, answers, keras_answers(model, x), strict=True):
        assert ours.shape == theirs.shape, name
        assert np.abs(ours - theirs).max() <= bound, name


def keras_answers(model: Any, x: list[np.ndarray]) -> list[np.ndarray]:
    given = [a.astype(np.float32) for a in x]
    return as_list(model.predict(given if len(given) > 1 else given[0], verbose=0))
