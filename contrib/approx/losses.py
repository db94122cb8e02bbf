"""The loss of a classifier, from its last activation and its labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from .errors import ApproxError, check


def default_loss(model: Any, labels: Any) -> tuple[Any, list[Any]]:
    """Return the cross entropy that suits a model and a batch of labels, and the accuracy.

    A last activation of softmax or sigmoid answers probabilities; without one, answers are taken for logits.

    Raises:
        ApproxError: there are several outputs, or the labels are no classes.
    """
    if len(model.outputs) != 1 or not isinstance(labels, np.ndarray):
        raise ApproxError("the model has several outputs, or no labels: name the loss with loss=")
    last = final_activation(model)
    size = model.outputs[0].shape[-1]
    if size == 1:
        binary = last == "sigmoid"
        accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.5 if binary else 0.0)
        zero_one = bool(np.isin(labels, (0, 1)).all())
        check(zero_one, "labels of one output are to be 0 or 1; for other targets, name the loss with loss=")
        return keras.losses.BinaryCrossentropy(from_logits=not binary), [accuracy]
    logits = last != "softmax"
    if labels.shape[-1:] == (size,) and labels.ndim == len(model.outputs[0].shape):
        check(
            bool(np.allclose(labels.sum(-1), 1) and labels.min() >= 0),
            "labels of the output's shape are to be probabilities; for other targets, name the loss with loss=",
        )
        return keras.losses.CategoricalCrossentropy(from_logits=logits), ["accuracy"]
    check(
        bool(np.array_equal(labels, np.round(labels)) and labels.min() >= 0 and labels.max() < size),
        f"labels are to be classes from 0 to {size - 1}; for other targets, name the loss with loss=",
    )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits), ["accuracy"]


def final_activation(model: Any) -> str:
    """Return the name of the activation that makes the model's first output, or "linear"."""
    layer = model.outputs[0]._keras_history.operation
    while isinstance(layer, keras.Model):
        layer = layer.outputs[0]._keras_history.operation
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", activation))
