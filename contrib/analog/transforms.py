"""What layers do with inputs and weights before they multiply. Factors are constants for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .errors import AnalogError
from .parameters import INPUT_RANGE, WEIGHT_RANGE

Transform = Callable[[Any], Any]


def clamp_weight(weight: Any) -> Any:
    """Return weights within the range of synapses; the gradient passes, as if they had been there before."""
    clip = tf.grad_pass_through(lambda w: tf.clip_by_value(w, *map(float, WEIGHT_RANGE)))
    return clip(tf.convert_to_tensor(weight))


def scale_weight(weight: Any) -> Any:
    """Return weights of which the largest magnitude is that of a synapse."""
    return weight * _factor(WEIGHT_RANGE[1], tf.reduce_max(tf.abs(weight)))


def scale_input(x: Any) -> Any:
    """Return inputs of which the largest is 31: one factor for a whole batch, so that samples depend on each other."""
    return x * _factor(INPUT_RANGE[1], tf.reduce_max(x))


def _factor(limit: int, largest: Any) -> Any:
    positive = largest > 0
    return tf.stop_gradient(tf.where(positive, float(limit) / tf.where(positive, largest, 1.0), 1.0))


BY_NAME: dict[str, Transform] = {f.__name__: f for f in (clamp_weight, scale_weight, scale_input)}


def get(transform: str | Transform | None, where: str) -> Transform | None:
    """Return the function that `transform` is or names: one of this module, or one registered with Keras."""
    if transform is None or callable(transform):
        return transform
    found = BY_NAME.get(transform) or keras.saving.get_registered_object(transform)
    if found is None:
        raise AnalogError(
            f"{where}: no transform {transform!r}; there are {', '.join(BY_NAME)}, and functions registered with "
            "keras.saving.register_keras_serializable"
        )
    return found


def name_of(transform: Transform | None) -> str | None:
    """Return the name that :func:`get` knows `transform` by; its own name where it is not registered."""
    if transform is None or BY_NAME.get(getattr(transform, "__name__", "")) is transform:
        return getattr(transform, "__name__", None)
    return str(keras.saving.get_registered_name(transform))


@keras.saving.register_keras_serializable("kconvert_analog")
class ClampWeight(keras.constraints.Constraint):  # type: ignore[misc]
    """Keeps trained weights within the range of synapses, as clamp_weight has used them."""

    def __call__(self, w: Any) -> Any:
        """Return `w`, clipped."""
        return keras.ops.clip(w, *map(float, WEIGHT_RANGE))
