"""The intermediate representation: one small dataclass per operation."""

from kconvert.layers.activations import (
    Quantize,
    Relu,
    ScaledQuantize,
    Softmax,
    StepFunction,
    TableActivation,
)
from kconvert.layers.base import Constant, Node, Value, identifier
from kconvert.layers.core import (
    ApplyAlpha,
    BatchNormalization,
    Dense,
    Identity,
    Input,
    Reshape,
    View,
    Weighted,
    ZeroPadding,
)
from kconvert.layers.merge import Add, Average, Concatenate, Maximum, Merge, Minimum, Multiply, Subtract
from kconvert.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from kconvert.layers.steps import Thresholds
from kconvert.layers.windows import Conv, DepthwiseConv, Pool, Window

__all__ = [
    "GRU",
    "LSTM",
    "Add",
    "ApplyAlpha",
    "Average",
    "BatchNormalization",
    "Concatenate",
    "Constant",
    "Conv",
    "Dense",
    "DepthwiseConv",
    "Identity",
    "Input",
    "Maximum",
    "Merge",
    "Minimum",
    "Multiply",
    "Node",
    "Pool",
    "Quantize",
    "Recurrent",
    "Relu",
    "Reshape",
    "ScaledQuantize",
    "SimpleRNN",
    "Softmax",
    "StepFunction",
    "Subtract",
    "TableActivation",
    "Thresholds",
    "Value",
    "View",
    "Weighted",
    "Window",
    "ZeroPadding",
    "identifier",
]
