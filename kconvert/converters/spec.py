"""The neutral form of a Keras model: what every reader makes and every layer converter takes.

It holds layers as Keras describes them (class name, config dictionary, inbound tensors, weight arrays) and
nothing that needs Keras itself, so the same converters serve live models of Keras 2 and 3 and files of any
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor of a model: output number `index` of call number `call` of the layer named `layer`."""

    layer: str
    call: int = 0
    index: int = 0

    def __str__(self) -> str:
        return self.layer + (f"@{self.call}" if self.call else "") + (f":{self.index}" if self.index else "")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer of a Keras model.

    Attributes:
        class_name: Keras' class name, e.g. ``"Dense"`` or ``"QConv2D"``.
        name: The user's name of the layer, unique in the model. Layers of a nested model are called
            ``"<nested model>/<layer>"``. A name is a key and nothing else: never part of a path.
        config: Keras' own config dictionary of the layer. An ``InputLayer`` always has ``"batch_shape"``.
        calls: For every call of the layer the tensors it is called on. An ``InputLayer`` has one empty call;
            a layer with more than one call shares its weights between them.
        weights: The arrays in the order of Keras' ``get_weights()`` (kernel, bias, ...), in Keras' layouts.
        weight_names: One name per array, such as ``"kernel"``, or ``""`` where it is not known.
        registered_name: Name under which the class is registered with Keras (``"qkeras>QDense"``), if known.
        module: The Python module of the class (``"keras.layers"``), if known.
        keras_version: Version of the Keras that made the model, if known.
    """

    class_name: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[tuple[TensorRef, ...], ...]
    weights: tuple[npt.NDArray[Any], ...] = ()
    weight_names: tuple[str, ...] = ()
    registered_name: str | None = None
    module: str | None = None
    keras_version: str | None = None

    def weight(self, name: str) -> npt.NDArray[Any] | None:
        """Return the first array called `name`, or None where the layer has no such weight."""
        return next((w for n, w in zip(self.weight_names, self.weights, strict=True) if n == name), None)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A Keras model as a list of layers.

    Attributes:
        name: Name of the model.
        layers: Every layer once, sorted topologically by its first call: the tensors of that call come from
            layers further up.
        inputs: The tensors the caller provides, in the order of the model's inputs.
        outputs: The tensors the model returns, in order.
        keras_version: Version of the Keras that made the model, if known.
        source: The file the model was read from, or ``"live model"``.
    """

    name: str
    layers: tuple[LayerSpec, ...]
    inputs: tuple[TensorRef, ...]
    outputs: tuple[TensorRef, ...]
    keras_version: str | None = None
    source: str = "live model"

    def __getitem__(self, name: str) -> LayerSpec:
        """Return the layer called `name`; raises KeyError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)
