"""Readers of Keras' own layers; importing this package registers them."""

from kconvert.converters.keras import (
    activations,
    attention,
    core,
    merge,
    moves,
    normalisation,
    operations,
    products,
    recurrent,
    windows,
    wrappers,
)

__all__ = [
    "activations",
    "attention",
    "core",
    "merge",
    "moves",
    "normalisation",
    "operations",
    "products",
    "recurrent",
    "windows",
    "wrappers",
]
