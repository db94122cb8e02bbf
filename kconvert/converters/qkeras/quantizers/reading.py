"""Quantizers from what a layer holds: a string, a config dictionary, or a live object."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from kconvert.converters.qkeras.quantizers.quantizer import Quantizer
from kconvert.converters.qkeras.quantizers.table import QUANTIZERS
from kconvert.errors import UnsupportedLayerError


def read_quantizer(layer_name: str, raw: object) -> Quantizer | None:
    """Read a quantizer as a layer's config or a live layer holds it.

    Args:
        layer_name: Name of the layer, for messages.
        raw: None; a string such as ``"quantized_bits(6,0,alpha=1)"`` or ``"binary"``; a config dictionary of
            Keras 2 or 3; or a QKeras object, whose attributes say more than its config (QKeras leaves out
            scale_axis, is_quantized_clip, use_real_sigmoid of bernoulli, and others).

    Returns:
        The quantizer, or None for None.

    Raises:
        UnsupportedLayerError: It is unknown, or its options cannot be read.
    """
    if raw is None:
        return None
    if isinstance(raw, str):
        name, options = _parse_call(layer_name, raw)
        return Quantizer(name, options, layer_name)
    if isinstance(raw, Mapping):
        config, class_name = raw.get("config"), raw.get("class_name")
        if isinstance(config, str):  # Keras 3 wraps a function: {"class_name": "function", "config": "hard_tanh"}
            return read_quantizer(layer_name, config)
        if isinstance(class_name, str):
            _refuse_foreign(layer_name, class_name, _package_of(raw, class_name))
            return Quantizer(class_name.rsplit(">", 1)[-1], dict(config or {}), layer_name)
    elif callable(raw):
        kind = raw if isinstance(raw, type) else type(raw)
        if not hasattr(raw, "__name__") or isinstance(raw, type):  # an object or a class; a function is unknown anyway
            _refuse_foreign(layer_name, kind.__name__, kind.__module__.partition(".")[0])
        known = QUANTIZERS[kind.__name__].options if kind.__name__ in QUANTIZERS and kind is not raw else {}
        found = {option: getattr(raw, option) for option in known if hasattr(raw, option)}
        return Quantizer(getattr(raw, "__name__", kind.__name__), found, layer_name)
    raise UnsupportedLayerError(f"layer {layer_name!r}: cannot read its quantizer {raw!r}")


def _package_of(raw: Mapping[str, Any], class_name: str) -> str:
    """Return the package that a config says its class is of; QKeras' if it says nothing."""
    registered, _, _ = str(raw.get("registered_name") or class_name).rpartition(">")
    return registered or str(raw.get("module") or "qkeras").partition(".")[0]


def _refuse_foreign(layer_name: str, class_name: str, package: str) -> None:
    """Refuse a class of somebody else that is called like one of QKeras: what it computes is not known."""
    if class_name.rsplit(">", 1)[-1] in QUANTIZERS and package != "qkeras":
        raise UnsupportedLayerError(
            f"layer {layer_name!r}: its quantizer {class_name!r} is not QKeras' own but that of {package!r}, whose "
            "arithmetic is not known; register a reader of its own with kconvert.converters.registry"
        )


def _parse_call(layer: str, text: str) -> tuple[str, dict[str, Any]]:
    """Read ``name`` or ``name(1, key=literal)``; arrays may be spelled as numpy prints them."""
    spelled = re.sub(r"(?<=[\d.\]])\s+(?=[-+\d.\[])", ",", text.strip())
    try:
        tree = ast.parse(spelled, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        name = ast.unparse(call.func).rsplit(".", 1)[-1]
        args = [ast.literal_eval(a) for a in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise UnsupportedLayerError(
            f"layer {layer!r}: cannot read the quantizer {text!r}; write it as 'quantized_bits(6, 0, alpha=1)', "
            "with plain numbers, strings and lists"
        ) from None
    known = list(QUANTIZERS[name].options) if name in QUANTIZERS else [f"argument {i}" for i in range(len(args))]
    if len(args) > len(known):
        raise UnsupportedLayerError(f"layer {layer!r}: quantizer {text!r} has more than {len(known)} arguments")
    by_place = dict(zip(known, args, strict=False))
    twice = sorted(by_place.keys() & named)
    if twice:
        raise UnsupportedLayerError(f"layer {layer!r}: quantizer {text!r} gives {twice[0]!r} twice")
    return name, by_place | named
