"""The intermediate representation: one small dataclass per operation."""

from kconvert.layers.activations import Relu, Softmax, TableActivation
from kconvert.layers.base import Constant, Node, Value, identifier
from kconvert.layers.core import (
    BatchNormalization,
    Dense,
    Identity,
    Input,
    Reshape,
    View,
    Weighted,
    ZeroPadding,
)
from kconvert.layers.merge import Add, Concatenate
from kconvert.layers.windows import Conv, DepthwiseConv, Pool, Window

__all__ = [
    "Add",
    "BatchNormalization",
    "Concatenate",
    "Constant",
    "Conv",
    "Dense",
    "DepthwiseConv",
    "Identity",
    "Input",
    "Node",
    "Pool",
    "Relu",
    "Reshape",
    "Softmax",
    "TableActivation",
    "Value",
    "View",
    "Weighted",
    "Window",
    "ZeroPadding",
    "identifier",
]
