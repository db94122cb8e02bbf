"""Bit-exact simulation: the generated C++ compiled into a shared object, and the object called from numpy."""

from kconvert.csim.library import Library, load

__all__ = ["Library", "load"]
