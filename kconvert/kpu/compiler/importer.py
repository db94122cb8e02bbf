"""Reading a .tflite file into the compiler's graph.

Tensors of four dimensions become NCHW, others keep their order. Quantised tensors are read as the real numbers they
stand for, so that an int8 network becomes a float one. Files are not trusted: whatever does not hold together is a
:class:`TFLiteError`, and no file makes the compiler allocate or compute without bound.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import TFLiteError
from kconvert.kpu.compiler.graph import Graph, Reshape, Tensor, Transpose, constant, name_unnamed
from kconvert.packages import import_package

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

MAX_FILE = 256 * 1024 * 1024  # bytes
MAX_TENSORS = 16384
MAX_OPERATORS = 2048  # the rewrites take the square of it
MAX_ELEMENTS = 1 << 23  # of one tensor that is computed; the chip has 6 MiB in all
MAX_WORK = 1 << 33  # multiply-accumulates; half a minute and more on the chip
MAX_RANK = 4
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
AXIS_NCHW = (0, 2, 3, 1)  # where an axis of NHWC is in NCHW

# What reading a damaged flatbuffer ends in, besides our own checks.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError, MemoryError)


def read_tflite(source: bytes | str | os.PathLike[str]) -> Graph:
    """Read a model.

    Args:
        source: the bytes of a .tflite file, or its path.

    Raises:
        TFLiteError: the file cannot be read, is damaged, or holds an operation that cannot be expressed; the message
            names the operation, its result, and the nearest form that can.
        MissingPackageError: the package ``tflite`` is not installed.
    """
    import_package("flatbuffers", "reading a tflite file")
    schema = import_package("tflite", "reading a tflite file")
    data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else _file_bytes(source)
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise TFLiteError(f"not a tflite file: bytes 4 to 8 are {data[4:8]!r} instead of {b'TFL3'!r}")
    with _damage("the file"):
        model = schema.Model.GetRootAs(data, 0)
        if model.SubgraphsLength() != 1:
            raise TFLiteError(f"the file has {_bounded(model.SubgraphsLength())} subgraphs; one is supported")
        return Importer(schema, model, len(data)).graph()


def _file_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise TFLiteError(f"cannot read {os.fspath(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_FILE:
        raise TFLiteError(f"{os.fspath(path)!r} has more than {MAX_FILE} bytes")
    return data


@contextmanager
def _damage(what: str) -> Iterator[None]:
    try:
        yield
    except TFLiteError:
        raise
    except _DAMAGE as error:
        raise TFLiteError(f"{what} is cut off or damaged: {error}") from error


def _bounded(count: int, most: int = MAX_TENSORS) -> int:
    if not 0 <= count <= most:
        raise TFLiteError(f"a list of {count} entries, where {most} are the most: the file is damaged")
    return count


@dataclass
class Operator:
    """An operation of the file."""

    name: str
    inputs: list[int]  # numbers of tensors, -1 where an optional one is left out
    outputs: list[int]
    where: str  # for messages
    _options: Any = None
    _schema: Any = None

    def options(self, kind: str) -> Any:
        """Return its options, those of `kind`; defaults if it has none."""
        table = self._options.BuiltinOptions()
        if table is None:
            return None
        if self._options.BuiltinOptionsType() != getattr(self._schema.BuiltinOptions, kind):
            raise TFLiteError(f"{self.where}: its options are not {kind}")
        found = getattr(self._schema, kind)()
        found.Init(table.Bytes, table.Pos)
        return found

    def required(self, kind: str) -> Any:
        """Return its options, which have to be there."""
        found = self.options(kind)
        if found is None:
            raise TFLiteError(f"{self.where}: it has no {kind}")
        return found

    def refuse(self, problem: str) -> TFLiteError:
        """Return the error that says where it is."""
        return TFLiteError(f"{self.where}: {problem}")


@dataclass(frozen=True)
class Repeated:
    """A tensor of five dimensions on its way from four to four: NHWC with one more behind `axis`, of `count` copies.

    That is how Keras 3 writes an UpSampling2D.
    """

    x: Tensor
    axis: int
    count: int = 1

    @property
    def shape(self) -> Shape:
        """In the order of the file."""
        shape = file_shape(self.x.shape)
        return (*shape[: self.axis + 1], self.count, *shape[self.axis + 1 :])


Value = Tensor | Array | Repeated
Read = Callable[["Importer", Operator], "Value | list[Tensor]"]
READERS: dict[str, Read] = {}


def reads(*names: str) -> Callable[[Read], Read]:
    """Register the reader of some operations."""

    def register(function: Read) -> Read:
        for name in names:
            READERS[name] = function
        return function

    return register


def clean(name: bytes | None, number: int) -> str:
    """Return a tensor's name as short printable text."""
    text = (name or b"").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[:80]) or f"tensor {number}"


@dataclass
class Info:
    """What the file says of a tensor."""

    number: int
    name: str
    shape: Shape
    type: int
    scale: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    axis: int = 0
    buffer: int = 0
    signature: Shape = ()  # the shape with -1 for sizes that the file leaves open, or empty

    @property
    def nchw(self) -> Shape:
        """Its shape in the graph."""
        return tuple(self.shape[i] for i in TO_NCHW) if len(self.shape) == MAX_RANK else self.shape

    def fits(self, shape: Shape) -> bool:
        """Whether a computed shape, in the order of the file, is what the file says as far as it says it."""
        known = self.signature if len(self.signature) == len(self.shape) else self.shape
        return len(shape) == len(known) and all(k in (s, -1) for s, k in zip(shape, known, strict=True))


class Importer:
    """Holds what is known of the file's tensors while its operations are read in order."""

    def __init__(self, schema: Any, model: Any, size: int) -> None:
        self.schema, self.model, self.size = schema, model, size
        self.names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        self.values: dict[int, Value] = {}
        self.work = 0
        types = schema.TensorType
        self.floats = {types.FLOAT32: np.float32, types.FLOAT16: np.float16}
        self.integers = {types.INT32: np.int32, types.INT64: np.int64, types.BOOL: np.bool_}
        self.quantised = {types.INT8: np.int8, types.UINT8: np.uint8, types.INT16: np.int16}
        part = model.Subgraphs(0)
        self.part = part
        self.infos = [self._info(part.Tensors(i), i) for i in range(_bounded(part.TensorsLength()))]

    def graph(self) -> Graph:
        """Return the whole graph."""
        part = self.part
        inputs = [self._input(int(i)) for i in self._numbers(part.InputsAsNumpy())]
        for i in range(_bounded(part.OperatorsLength(), MAX_OPERATORS)):
            self._operator(part.Operators(i))
        outputs = [self.tensor(int(i)) for i in self._numbers(part.OutputsAsNumpy())]
        if not inputs or not outputs:
            raise TFLiteError("the model has no input or no output")
        if not any(t.producer or t in inputs for t in outputs):
            raise TFLiteError("no output of the model depends on its input")
        ends = {"inputs": self._numbers(part.InputsAsNumpy()), "outputs": self._numbers(part.OutputsAsNumpy())}
        return Graph(inputs, outputs, [self.infos[i].name for i in ends["outputs"]], self._signature(ends))

    def _signature(self, ends: dict[str, list[int]]) -> dict[str, list[str]]:
        """Return what the saved model behind the file calls its inputs and outputs, as far as the file says."""
        if self.model.SignatureDefsLength() != 1:
            return {}
        signature, found = self.model.SignatureDefs(0), {}
        for what, count, entry in (
            ("inputs", signature.InputsLength(), signature.Inputs),
            ("outputs", signature.OutputsLength(), signature.Outputs),
        ):
            entries = [entry(i) for i in range(_bounded(count))]
            names = {e.TensorIndex(): clean(e.Name(), 0) for e in entries}
            found[what] = [names[n] for n in ends[what] if n in names]
        return found

    # ***** tensors *****

    def _info(self, raw: Any, number: int) -> Info:
        with _damage(f"tensor {number}"):
            dims = raw.ShapeAsNumpy()
            shape = tuple(int(d) for d in dims) if isinstance(dims, np.ndarray) else ()
            if len(shape) > 8 or any(d < 0 for d in shape):
                raise TFLiteError(f"tensor {number} has the shape {shape}")
            open_sizes = raw.ShapeSignatureAsNumpy()
            signature = tuple(int(d) for d in open_sizes) if isinstance(open_sizes, np.ndarray) else ()
            info = Info(number, clean(raw.Name(), number), shape, raw.Type(), buffer=raw.Buffer(), signature=signature)
            quant = raw.Quantization()
            if quant is not None and isinstance(scale := quant.ScaleAsNumpy(), np.ndarray) and scale.size:
                zero = quant.ZeroPointAsNumpy()
                info.scale = scale.astype(np.float32)
                info.zero_point = zero.astype(np.int64) if isinstance(zero, np.ndarray) else np.zeros(1, np.int64)
                info.axis = quant.QuantizedDimension()
                if not np.isfinite(info.scale).all() or len(info.zero_point) not in (1, len(info.scale)):
                    raise TFLiteError(f"tensor {info.name!r}: its quantisation is damaged")
            return info

    def _numbers(self, numbers: Any) -> list[int]:
        found = [] if isinstance(numbers, int) else [int(n) for n in numbers]
        if any(not -1 <= n < len(self.infos) for n in found) or len(found) > MAX_TENSORS:
            raise TFLiteError("an operation names a tensor that is not there: the file is damaged")
        return found

    def info(self, number: int) -> Info:
        """Return what the file says of a tensor."""
        if not 0 <= number < len(self.infos):
            raise TFLiteError(f"tensor {number} is not there: the file is damaged")
        return self.infos[number]

    def _computed(self, info: Info, shape: Shape) -> None:
        """Refuse a computed tensor that the graph cannot hold."""
        if info.type not in self.quantised and info.type != self.schema.TensorType.FLOAT32:
            kind = {v: k for k, v in vars(self.schema.TensorType).items() if isinstance(v, int)}.get(
                info.type, info.type
            )
            raise TFLiteError(f"tensor {info.name!r} holds {kind}; computed tensors are float32, or quantised int8")
        if len(shape) > MAX_RANK:
            raise TFLiteError(f"tensor {info.name!r} has {len(shape)} dimensions; the kmodel format has {MAX_RANK}")
        if any(d < 1 for d in shape):
            raise TFLiteError(f"tensor {info.name!r} has the shape {shape}; give every dimension a fixed size")
        if math.prod(shape) > MAX_ELEMENTS:
            raise TFLiteError(f"tensor {info.name!r} of shape {shape} is larger than all memory of the chip")

    def _input(self, number: int) -> Tensor:
        info = self.info(number)
        if -1 in info.signature[1:]:
            raise TFLiteError(
                f"input {info.name!r} has the shape {info.signature}, where -1 is open; a kmodel has fixed sizes, as "
                f"of keras.Input((height, width, channels))"
            )
        self._computed(info, info.shape)
        made = Tensor(info.name, info.nchw)
        self.values[number] = made
        return made

    def constant(self, number: int, what: str = "constant") -> Array:
        """Return a constant in the order of the file: real numbers as float32, others as int64."""
        info = self.info(number)
        if number in self.values:
            value = self.values[number]
            if not isinstance(value, np.ndarray):
                raise TFLiteError(f"tensor {info.name!r}: its {what} is computed and has to be a constant")
            return value
        with _damage(f"tensor {info.name!r}"):
            value = self._stored(info)
        self.values[number] = value
        return value

    def _stored(self, info: Info) -> Array:
        buffers = self.model.BuffersLength()
        if not 0 < info.buffer < buffers or self.model.Buffers(info.buffer).DataLength() == 0:
            raise TFLiteError(f"tensor {info.name!r} is used before anything computes it")
        raw = self.model.Buffers(info.buffer).DataAsNumpy()
        known = {**self.floats, **self.integers, **self.quantised}
        if info.type not in known:
            raise TFLiteError(f"tensor {info.name!r} holds constants of type {info.type}, which is not supported")
        kind = np.dtype(known[info.type]).newbyteorder("<")
        if raw.size != math.prod(info.shape) * kind.itemsize:
            raise TFLiteError(f"tensor {info.name!r} of shape {info.shape} has {raw.size} bytes of data")
        value = np.frombuffer(raw.tobytes(), kind).reshape(info.shape)
        if info.scale.size or info.type in self.floats:
            value = _dequantised(value, info) if info.scale.size else value.astype(np.float32)
            if not np.isfinite(value).all():
                raise TFLiteError(f"tensor {info.name!r} holds numbers that are not finite")
            return value
        return value.astype(np.int64)

    def is_constant(self, number: int) -> bool:
        """Whether a tensor is known without an input."""
        if number in self.values:
            return isinstance(self.values[number], np.ndarray)
        return number >= 0

    def tensor(self, number: int) -> Tensor:
        """Return a tensor of the graph, NCHW if it has four dimensions."""
        value = self.values.get(number)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Repeated):
            raise TFLiteError(f"tensor {self.info(number).name!r} has 5 dimensions; the kmodel format has {MAX_RANK}")
        info, data = self.info(number), self.constant(number)
        if data.ndim > MAX_RANK:
            raise TFLiteError(f"tensor {info.name!r} has {data.ndim} dimensions; the kmodel format has {MAX_RANK}")
        return constant(info.name, np.asarray(data.transpose(TO_NCHW) if data.ndim == MAX_RANK else data, np.float32))

    def shape(self, number: int) -> Shape:
        """Return a tensor's shape in the order of the file."""
        if number in self.values:
            value = self.values[number]
            return file_shape(value.shape) if isinstance(value, Tensor) else value.shape
        return self.info(number).shape

    def fits(self, op: Operator, *counts: int) -> None:
        """Refuse what needs more elements for a while than the bound for padded maps and matrices."""
        if max(counts) > 4 * MAX_ELEMENTS:
            raise op.refuse(f"it would work on {max(counts)} elements, far beyond the chip")

    def weigh(self, op: Operator, macs: int) -> None:
        """Count work, and refuse what nothing small could do."""
        self.work += macs
        if self.work > MAX_WORK:
            raise op.refuse(f"the model needs more than {MAX_WORK} multiply-accumulates, far beyond the chip")

    # ***** operations *****

    def _operator(self, raw: Any) -> None:
        with _damage("an operation"):
            code = self.model.OperatorCodes(raw.OpcodeIndex())
            if code is None or raw.OpcodeIndex() >= self.model.OperatorCodesLength():
                raise TFLiteError("an operation has no code: the file is damaged")
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            custom = code.CustomCode()
            name = clean(custom, number) if custom else self.names.get(number, f"operation {number}")
            outputs = self._numbers(raw.OutputsAsNumpy())
            label = self.info(outputs[0]).name if outputs else "nothing"
            where = f"{name} that makes {label!r}"
            op = Operator(name, self._numbers(raw.InputsAsNumpy()), outputs, where, raw, self.schema)
        if name not in READERS or custom:
            raise op.refuse(f"not supported{nearest(name)}")
        with _damage(where):
            made = READERS[name](self, op)
            self._keep(op, made if isinstance(made, list) else [made])

    def _keep(self, op: Operator, made: list[Any]) -> None:
        if len(made) != len(op.outputs):
            raise op.refuse(f"it has {len(op.outputs)} results instead of {len(made)}")
        for number, value in zip(op.outputs, made, strict=True):
            info = self.info(number)
            if number in self.values:
                raise op.refuse("another operation makes the same tensor")
            if isinstance(value, Tensor):
                shape = file_shape(value.shape)
                self._computed(info, shape)
                if not info.fits(shape):
                    raise op.refuse(f"it makes the shape {shape}, and the file says {info.shape}")
                name_unnamed(value, info.name)
            self.values[number] = value


def file_shape(shape: Shape) -> Shape:
    """Return a shape of the graph in the order of the file."""
    return tuple(shape[i] for i in TO_NHWC) if len(shape) == MAX_RANK else shape


def _dequantised(value: Array, info: Info) -> Array:
    """Return the real numbers, with one scale for each index of the quantised dimension if there are several."""
    scale, zero = info.scale, info.zero_point
    if len(scale) > 1:
        if not 0 <= info.axis < value.ndim or len(scale) != value.shape[info.axis]:
            raise TFLiteError(f"tensor {info.name!r}: {len(scale)} scales do not fit dimension {info.axis}")
        shape = [1] * value.ndim
        shape[info.axis] = len(scale)
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if len(zero) > 1 else zero
    with np.errstate(over="ignore"):  # whoever stores it looks for infinity
        return np.asarray((value.astype(np.float32) - zero) * scale, np.float32)


def transposed(x: Tensor, perm: Shape) -> Tensor:
    """Return x with its dimensions reordered: a mere view if only dimensions of size 1 move."""
    if list(perm) == sorted(perm):
        return x
    kept = [p for p in perm if x.shape[p] > 1]
    if kept == sorted(kept):
        return Reshape(x, tuple(x.shape[p] for p in perm)).output
    return Transpose(x, perm).output


def to_file_order(x: Tensor) -> Tensor:
    """Return a tensor of the graph in the order of the file."""
    return transposed(x, TO_NHWC) if len(x.shape) == MAX_RANK else x


def to_graph_order(x: Tensor) -> Tensor:
    """Return a tensor in the order of the file in that of the graph."""
    return transposed(x, TO_NCHW) if len(x.shape) == MAX_RANK else x


_NEAREST = {
    "MIRROR_PAD": "pad with a constant (PAD)",
    "ARG_MAX": "end the model before it and compare its outputs in the application",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "only networks without state run on the KPU; use convolutions",
    "WHILE": "only networks without loops run on the KPU; unroll it",
    "IF": "only networks without branches run on the KPU",
    "BATCH_MATMUL": "a product with constant weights (FULLY_CONNECTED)",
    "CONV_3D": "CONV_2D",
    "TOPK_V2": "end the model before it and sort in the application",
    "NON_MAX_SUPPRESSION_V4": "end the model before it and do it in the application",
    "TFLite_Detection_PostProcess": "end the model before it and do it in the application",
    "POW": "SQUARE or MUL",
    **dict.fromkeys(
        ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL", "SELECT", "SELECT_V2", "WHERE"),
        "MAXIMUM and MINIMUM; for the activation SELU its neighbour ELU",
    ),
    "BROADCAST_TO": "binary operations, which repeat dimensions of size 1 themselves",
    "LOCAL_RESPONSE_NORMALIZATION": "batch normalisation",
}


def nearest(name: str) -> str:
    """Return what to use instead of an operation, as the end of a message."""
    if name in _NEAREST:
        return f"; nearest supported form: {_NEAREST[name]}"
    from kconvert.errors import did_you_mean

    known = ", ".join(sorted(READERS))
    return f"{did_you_mean(name, READERS)}; supported are {known}"
