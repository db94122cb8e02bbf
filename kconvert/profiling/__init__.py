"""See what the numbers do: Keras and hardware layer by layer, ranges of values, what types do to them, ROC curves.

The numbers (:func:`get_ymodel_keras`, :func:`compare_table`, :func:`numerical_table`, :func:`checks`, :func:`estimate`)
need numpy alone; matplotlib and scikit-learn are imported when a figure is drawn or a curve is found.
"""

from __future__ import annotations

from kconvert.profiling.checking import Check, Checks, checks
from kconvert.profiling.classifiers import roc, roc_table
from kconvert.profiling.costs import Cost, Estimate, estimate
from kconvert.profiling.keras_outputs import get_ymodel_keras
from kconvert.profiling.numbers import compare_table, numerical_table
from kconvert.profiling.plots import compare, numerical

__all__ = [
    "Check",
    "Checks",
    "Cost",
    "Estimate",
    "checks",
    "compare",
    "compare_table",
    "estimate",
    "get_ymodel_keras",
    "numerical",
    "numerical_table",
    "roc",
    "roc_table",
]
