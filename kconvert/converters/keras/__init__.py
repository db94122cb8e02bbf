"""Readers of Keras' own layers; importing this package registers them."""

from kconvert.converters.keras import activations, core, merge, recurrent, windows

__all__ = ["activations", "core", "merge", "recurrent", "windows"]
