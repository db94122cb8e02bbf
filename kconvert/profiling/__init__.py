"""See what the numbers do: Keras and hardware compared layer by layer, value ranges, ROC curves.

The numbers (:func:`get_ymodel_keras`, :func:`compare_table`, :func:`numerical_table`) need numpy alone; matplotlib
and scikit-learn are imported when a figure is drawn.
"""

from __future__ import annotations

from kconvert.profiling.keras_outputs import get_ymodel_keras
from kconvert.profiling.numbers import compare_table, numerical_table
from kconvert.profiling.plots import compare, numerical, roc

__all__ = ["compare", "compare_table", "get_ymodel_keras", "numerical", "numerical_table", "roc"]
