"""Readers of QKeras layers and quantizers; importing this package registers them. QKeras itself is not needed."""

from kconvert.converters.qkeras import activations, layers, recurrent

__all__ = ["activations", "layers", "recurrent"]
