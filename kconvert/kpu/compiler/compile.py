"""From a model to a kmodel: the steps, in order."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kconvert.errors import ConfigError, InputError, ModelError, WriteError
from kconvert.kpu.compiler.calibration import calibrate
from kconvert.kpu.compiler.dataset import Format, Layout, read_dataset
from kconvert.kpu.compiler.emit import emit
from kconvert.kpu.compiler.graph import Conv2D, Graph, KpuConv, MatMul, Tensor, rewrite
from kconvert.kpu.compiler.importer import read_tflite
from kconvert.kpu.compiler.lowering import LOWER, share_equal, show_shapes
from kconvert.kpu.compiler.numbers import Range
from kconvert.kpu.compiler.quantise import Quantiser
from kconvert.kpu.compiler.rewrites import SIMPLIFY, Thresholds, kpu_rules
from kconvert.kpu.k210 import GENERAL_RAM
from kconvert.kpu.kmodel import KModel
from kconvert.kpu.layout import output_shapes
from kconvert.packages import import_package
from kconvert.progress import working

Target = Literal["k210", "cpu"]
FIRMWARE = 512 * 1024  # bytes of general memory that a small firmware takes itself; measure yours
KERAS_FILES = (".keras", ".h5", ".hdf5")
CHOICES: dict[str, tuple[str, ...]] = {
    "target": ("k210", "cpu"),
    "inference_type": ("uint8", "float"),
    "input_type": ("default", "uint8", "float"),
    "calibrate_method": ("no_clip", "l2"),
    "dataset_format": ("image", "raw"),
    "layout": ("auto", "nchw", "nhwc"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile; see :func:`compile_model`."""

    target: Target = "k210"
    inference_type: Literal["uint8", "float"] = "uint8"
    input_type: Literal["default", "uint8", "float"] = "default"
    input_mean: float | None = None
    input_std: float | None = None
    dataset_format: Format = "image"
    layout: Layout = "auto"
    calibrate_method: Literal["no_clip", "l2"] = "no_clip"
    weights_quantize_threshold: float = 32.0
    output_quantize_threshold: int = 1024
    quantized_binary: bool = True
    max_allocator_solve_secs: float = 60.0
    memory: int = GENERAL_RAM - FIRMWARE
    dump_ir: str | os.PathLike[str] | None = None

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: the message names the option and what is allowed.
        """
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose from {', '.join(allowed)}")
        if self.inference_type == "float" and self.input_type == "uint8":
            raise ConfigError("input_type='uint8' needs inference_type='uint8': a float model takes float inputs")
        std = 1.0 if self.input_std is None else self.input_std
        for name, value in (("input_mean", self.input_mean or 0.0), ("input_std", std)):
            if not np.isfinite(value) or (name == "input_std" and value <= 0):
                raise ConfigError(f"{name}={value}: a finite number is needed{', above 0' * (name == 'input_std')}")
        for name in ("weights_quantize_threshold", "output_quantize_threshold", "max_allocator_solve_secs", "memory"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: it cannot be negative")

    @property
    def input_range(self) -> Range | None:
        """The range of the first input that mean and std fix, None if it is measured."""
        if self.input_mean is None and self.input_std is None:
            return None
        mean, std = self.input_mean or 0.0, 1.0 if self.input_std is None else self.input_std
        return Range((0 - mean) / std, (1 - mean) / std)


def compile_model(
    model: Any,
    dataset: Any = None,
    output: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> KModel:
    """Compile a network for the K210.

    Args:
        model: a Keras model or its file (converted by TensorFlow's TFLiteConverter), the bytes of a .tflite file, or
            its path.
        dataset: what to calibrate with, for an inference type of "uint8": a folder of images or raw float32 files, or
            an array [samples, ...]; uint8 arrays are pixels. For several inputs a list of arrays, in the order of the
            Keras model, or else of the tflite file (TensorFlow's converter may change it).
        output: file to write; it appears whole or not at all.
        progress: is called with a line about each step.
        target: "k210", or "cpu" for nothing on the KPU.
        inference_type: "uint8", or "float" for a float model that runs on the CPU.
        input_type: of the first input, "uint8" for pixels 0 to 255, "float" for real numbers; "default" is the
            inference type. Further inputs are real numbers.
        input_mean: samples are (x - mean) / std; giving either fixes the range of an input of uint8 to that of pixels.
        input_std: see `input_mean`.
        dataset_format: of the files, "image" or "raw".
        layout: of arrays, "nchw" as the device has them or "nhwc" as Keras has them; "auto" is the one that fits. Where
            both do, it is that of Keras for a Keras model, and that of the device for others.
        calibrate_method: "no_clip" keeps the whole range of a tensor, "l2" the part that loses least.
        weights_quantize_threshold: layers whose weights have a wider range stay in float.
        output_quantize_threshold: results with fewer elements stay in float.
        quantized_binary: False leaves additions and the like in float.
        max_allocator_solve_secs: for how long to look for a better plan of memory than a few tries give.
        memory: bytes of general memory that the file and its working memory may take together: 6 MiB less what the
            firmware needs.
        dump_ir: folder for the graph after each step, as .dot files.

    Returns:
        The kmodel; its ``infer`` runs it bit for bit as the device does.

    Raises:
        TFLiteError: the file is damaged, or holds what cannot be expressed.
        ConfigError: an option is unknown or makes no sense.
        InputError: the dataset does not fit the model.
        CapacityError: the model does not fit the chip's memory; the message says by how much.
        MissingPackageError: TensorFlow (for a Keras model), tflite, flatbuffers or Pillow are missing.
        WriteError: `output` cannot be written.
    """
    unknown = options.keys() - {name for name in Options.__dataclass_fields__}
    if unknown:
        raise ConfigError(f"unknown option {min(unknown)!r}; there are {', '.join(Options.__dataclass_fields__)}")
    settings = Options(**options)
    settings.check()
    with working("compiling for the KPU"):
        source = loaded(model)
        names = [t.name for t in getattr(source, "inputs", None) or []]
        made = _Compilation(settings, progress or (lambda line: None)).run(tflite_of(source), dataset, names)
    if output is not None:
        made.save(output)
    return made


def loaded(model: Any) -> Any:
    """Return a model as it is, or the Keras model in a file of that kind.

    Raises:
        ModelError: Keras cannot load the file.
        MissingPackageError: Keras is not installed.
    """
    if not isinstance(model, str | os.PathLike) or Path(model).suffix.lower() not in KERAS_FILES:
        return model
    keras = import_package("keras", "reading a Keras model for the KPU")
    try:
        return keras.saving.load_model(model, compile=False)
    except Exception as error:  # Keras raises whatever it meets
        raise ModelError(f"Keras cannot load {os.fspath(model)!r}: {error}") from error


def tflite_of(model: Any) -> bytes | str | os.PathLike[str]:
    """Return the bytes or the path of a tflite model; a Keras model, or a file with one, is converted.

    Raises:
        ModelError: it is neither, or TensorFlow cannot convert it.
        MissingPackageError: TensorFlow is needed and not installed.
    """
    model = loaded(model)
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, str | os.PathLike):
        return model
    if not hasattr(model, "layers"):
        raise ModelError(f"a {type(model).__name__} is no Keras model, nor the bytes or path of a tflite file")
    tf = import_package("tensorflow", "converting a Keras model to tflite")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Keras says where it keeps the model meanwhile
            converted: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    except Exception as error:  # the converter raises whatever it meets
        raise ModelError(f"TensorFlow cannot convert the model to tflite: {error}") from error
    return converted


@dataclass
class _Compilation:
    options: Options
    say: Callable[[str], None]

    def run(self, source: Any, dataset: Any, names: list[str]) -> KModel:
        """Compile; inputs and outputs in the order of a Keras model, if `names` are those of its inputs."""
        options = self.options
        self.say("1. Import graph...")
        graph = read_tflite(source)
        if names:
            graph.reorder(names)
        self._dump(graph, "ir_import")
        self.say("2. Simplify...")
        rewrite(graph, SIMPLIFY)
        self._dump(graph, "simplified")
        if options.inference_type == "uint8":
            either: tuple[Layout, ...] = ("nhwc", "nchw") if names else ("nchw", "nhwc")
            self._quantise(graph, dataset, either if options.layout == "auto" else (options.layout,))
        self.say("6. Plan memory, generate code...")
        self._check_outputs(graph)
        model = emit(graph, options.memory, options.max_allocator_solve_secs)
        if show_shapes(graph, output_shapes(model)):
            model = emit(graph, options.memory, options.max_allocator_solve_secs)
        self.say(f"Working memory usage: {model.main_memory} B")
        return model

    def _quantise(self, graph: Graph, dataset: Any, layouts: Sequence[Layout]) -> None:
        options = self.options
        limits = Thresholds(
            options.weights_quantize_threshold, options.output_quantize_threshold, options.quantized_binary
        )
        if options.target == "k210":
            self.say("3. Bring layers to the KPU...")
            rewrite(graph, (*kpu_rules(limits), *SIMPLIFY))
            self._dump(graph, "before_quant")
        for name, low, high in weight_ranges(graph):
            self.say(f"weights of {name}: {{{low:g}, {high:g}}}")
        if dataset is None:
            raise InputError(
                "an inference type of uint8 needs a dataset to calibrate with: the more like real use, the better"
            )
        mean, std = options.input_mean or 0.0, 1.0 if options.input_std is None else options.input_std
        shapes = [t.shape for t in graph.inputs]
        samples = read_dataset(dataset, shapes, options.dataset_format, layouts, mean, std)
        self.say(f"4. Calibrate with {len(samples[0])} samples...")
        found = calibrate(graph, samples, options.calibrate_method, options.input_range, self.say)
        self.say("5. Quantize...")
        Quantiser(graph, found.ranges, found.extremes, limits).run(options.input_type != "float")
        self._dump(graph, "after_quant")
        rewrite(graph, LOWER)
        share_equal(graph)
        self._dump(graph, "lowered")

    def _check_outputs(self, graph: Graph) -> None:
        for name, tensor in zip(graph.output_names, graph.outputs, strict=True):
            if tensor.data is not None or _is_input(graph, tensor):
                raise ModelError(f"output {name!r} of the model is a constant or an input: nothing computes it")

    def _dump(self, graph: Graph, stage: str) -> None:
        if self.options.dump_ir is None:
            return
        target = Path(self.options.dump_ir) / f"{stage}.dot"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(to_dot(graph), encoding="utf-8")
        except OSError as error:
            raise WriteError(f"cannot write {str(target)!r}: {error.strerror or error}") from error


def _is_input(graph: Graph, tensor: Tensor) -> bool:
    while tensor.producer is not None and type(tensor.producer).__name__ == "Reshape":
        tensor = tensor.producer.inputs[0]
    return tensor in graph.inputs


def weight_ranges(graph: Graph) -> list[tuple[str, float, float]]:
    """Return name, smallest and largest weight of every layer that has some."""
    found = []
    for op in graph.order():
        weights = op.weights if isinstance(op, Conv2D | KpuConv) else op.b.data if isinstance(op, MatMul) else None
        if weights is not None:
            found.append((op.output.name, float(weights.min()), float(weights.max())))
    return found


def to_dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    order = graph.order()
    number: dict[int, str] = {id(t): f"input{i}" for i, t in enumerate(graph.inputs)}
    lines = ["digraph kmodel {", "  node [shape=box, fontname=monospace]"]
    lines += [f"  input{i} [label={json.dumps(repr(t))}]" for i, t in enumerate(graph.inputs)]
    for i, op in enumerate(order):
        number[id(op.output)] = f"op{i}"
        label = f"{type(op).__name__}\n{op.output!r}\n{op.options()}"
        lines.append(f"  op{i} [label={json.dumps(label)}]")
        lines += [f"  {number[id(t)]} -> op{i}" for t in op.inputs if id(t) in number]
    for i, t in enumerate(graph.outputs):
        lines.append(f"  output{i} [shape=ellipse]")
        lines += [f"  {number[id(t)]} -> output{i}"] if id(t) in number else []
    return "\n".join([*lines, "}", ""])
