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
from kconvert.layers.contraction import Contraction, Slice
from kconvert.layers.core import (
    ApplyAlpha,
    BatchNormalization,
    Dense,
    Identity,
    Input,
    Rescale,
    Reshape,
    View,
    Weighted,
    ZeroPadding,
)
from kconvert.layers.embedding import Embedding
from kconvert.layers.exponential import Exponential, Softsign
from kconvert.layers.hard_activation import HardActivation
from kconvert.layers.merge import Add, Average, Concatenate, Maximum, Merge, Minimum, Multiply, Subtract
from kconvert.layers.moves import BilinearUpSampling, Cropping, Gather, Permute, Repeat, RepeatVector
from kconvert.layers.normalisation import Layout, SampleNormalization
from kconvert.layers.rectifiers import PRelu, ThresholdRelu
from kconvert.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from kconvert.layers.steps import Thresholds
from kconvert.layers.windows import Conv, DepthwiseConv, GroupedConv, Pool, Window

__all__ = [
    "GRU",
    "LSTM",
    "Add",
    "ApplyAlpha",
    "Average",
    "BatchNormalization",
    "BilinearUpSampling",
    "Concatenate",
    "Constant",
    "Contraction",
    "Conv",
    "Cropping",
    "Dense",
    "DepthwiseConv",
    "Embedding",
    "Exponential",
    "Gather",
    "GroupedConv",
    "HardActivation",
    "Identity",
    "Input",
    "Layout",
    "Maximum",
    "Merge",
    "Minimum",
    "Multiply",
    "Node",
    "PRelu",
    "Permute",
    "Pool",
    "Quantize",
    "Recurrent",
    "Relu",
    "Repeat",
    "RepeatVector",
    "Rescale",
    "Reshape",
    "SampleNormalization",
    "ScaledQuantize",
    "SimpleRNN",
    "Slice",
    "Softmax",
    "Softsign",
    "StepFunction",
    "Subtract",
    "TableActivation",
    "ThresholdRelu",
    "Thresholds",
    "Value",
    "View",
    "Weighted",
    "Window",
    "ZeroPadding",
    "identifier",
]
