"""From a Keras model, live or in a file, to an :class:`~kconvert.model.HLSModel`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kconvert.config import DEFAULT_PRECISION, ProjectSettings, make_config
from kconvert.converters.readers import read_model
from kconvert.converters.registry import read_layer
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import KConvertError, ModelError, PrecisionWarning
from kconvert.layers import Node, Value, Weighted
from kconvert.model import HLSModel, LayerCall
from kconvert.optimizers import keep_quantised_exact, split_activations
from kconvert.optimizers.selection import select_passes
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert.settings_file import ConversionFile

__all__ = [
    "build_model",
    "config_from_keras_model",
    "convert_from_config",
    "convert_from_keras_model",
    "keras_to_hls",
    "read_conversion_file",
    "read_model",
]


def config_from_keras_model(
    model: Any,
    granularity: str = "model",
    default_precision: str = DEFAULT_PRECISION,
    default_reuse_factor: int = 1,
) -> dict[str, Any]:
    """Return the settings a conversion of `model` would use, as a dictionary to edit.

    Args:
        model: A live Keras 2 or 3 model, a path to a .keras or .h5 file, or what :func:`read_model` returned.
        granularity: ``"model"``: settings of the whole; ``"type"``: also of every layer class; ``"name"``: also of
            every layer, each precision spelled out.
        default_precision: Type of inputs, parameters and of results that are not lossless. Unless it names rounding
            and overflow modes it rounds and saturates (``AP_RND, AP_SAT``).
        default_reuse_factor: How many times a multiplier is used for one sample.

    Raises:
        KConvertError: the model holds something that does not convert; `granularity` or a default is not valid.
    """
    graph = build_model(read_model(model))
    graph.run((split_activations, keep_quantised_exact), final=False)
    return make_config(graph, granularity, default_precision, default_reuse_factor)


def convert_from_keras_model(
    model: Any,
    hls_config: Mapping[str, Any] | None = None,
    output_dir: str | Path = "my-hls-project",
    project_name: str = "myproject",
    *,
    backend: str = "Vitis",
    part: str = "xcvu13p-flga2577-2-e",
    clock_period: float = 5,
    clock_uncertainty: str | None = None,
    io_type: str = "io_parallel",
    input_data_tb: Any = None,
    output_data_tb: Any = None,
) -> HLSModel:
    """Convert a Keras model. Nothing is written until ``write`` or ``build`` is called.

    Args:
        model: As for :func:`config_from_keras_model`.
        hls_config: Settings as :func:`config_from_keras_model` makes them; all defaults if left out.
        output_dir: Folder for the project.
        project_name: Name of the top function, a C++ identifier.
        backend: ``"Vitis"`` or ``"Vivado"``.
        part: FPGA part number.
        clock_period: In ns.
        clock_uncertainty: Share of the period to keep free, as ``"12.5%"``; the tool's default if left out.
        io_type: ``"io_parallel"``: all elements of a tensor at once; ``"io_stream"``: one position after the other.
        input_data_tb: Samples for the C++ test bench: an array (a list of arrays for several inputs) or a .npy file.
        output_data_tb: The answers to compare with; Keras' own if left out and the model is a live one.

    Raises:
        KConvertError: naming the layer, setting or file that is wrong.
    """
    settings = ProjectSettings(
        output_dir=str(output_dir),
        project_name=project_name,
        backend=backend,
        part=part,
        clock_period=clock_period,
        clock_uncertainty=clock_uncertainty,
        io_type=io_type,
    )
    hls_model = build_model(read_model(model), hls_config, settings)
    hls_model.keras_model = model if hls_model.spec.source == "live model" and hls_model.spec is not model else None
    hls_model.run(select_passes(hls_model.config.passes, hls_model.config.skipped_passes))
    warn_of_saturated_constants(hls_model)
    if settings.io_type == "io_stream" or hls_model.config.fifo_depths:
        from kconvert.streams import check_streams

        check_streams(hls_model)
    from kconvert.limits import warn_of_limits

    warn_of_limits(hls_model)
    if input_data_tb is not None:
        from kconvert.project import test_bench_data

        hls_model.test_bench_data = test_bench_data(hls_model, input_data_tb, output_data_tb)
    return hls_model


def convert_from_config(
    source: str | Path | Mapping[str, Any], *, allow_unsafe: bool = False, test_bench: bool = True
) -> HLSModel:
    """Convert what a YAML file, or a dictionary with its keys, describes; see docs/configuration.md.

    Args:
        source: The file, or a folder with a ``kconvert_config.yml`` such as a project's. Paths in the file are relative
            to it. A dictionary may hold a live model as ``KerasModel``.
        allow_unsafe: As for :func:`read_model`.
        test_bench: Read the samples for the test bench; they are not needed unless the project is written.

    Raises:
        KConvertError: naming the file and key, layer or setting that is wrong.
    """
    file, spec = read_conversion_file(source, allow_unsafe=allow_unsafe)
    live = file.weights is None and not isinstance(file.model, str | Path)
    options = {k: v for k, v in file.options.items() if test_bench or not k.endswith("_tb")}
    return convert_from_keras_model(file.model if live else spec, file.hls_config, **options)


def read_conversion_file(
    source: str | Path | Mapping[str, Any], *, allow_unsafe: bool = False
) -> tuple[ConversionFile, ModelSpec]:
    """Return what a settings file says, its settings in terms of kconvert, and the model it names."""
    from kconvert.settings_file import adapted, read_conversion

    file = read_conversion(source)
    spec = read_model(file.model, file.weights, allow_unsafe=allow_unsafe)

    def layers() -> list[Node]:
        graph = build_model(spec)
        graph.run((split_activations,), final=False)
        return graph.nodes

    return replace(file, hls_config=adapted(file.hls_config, layers)), spec


def keras_to_hls(source: str | Path | Mapping[str, Any]) -> HLSModel:
    """Convert what a YAML file or a dictionary describes: the older name of :func:`convert_from_config`."""
    return convert_from_config(source)


def warn_of_saturated_constants(model: HLSModel) -> None:
    """Warn of weights that lie outside the range of their type."""
    for node in model.nodes:
        for role, constant in node.constants().items():
            kind, values = constant.type, constant.values
            outside = int(np.sum((values < kind.min - kind.step) | (values > kind.max + kind.step)))
            if outside and not role.endswith("table"):
                warnings.warn(
                    f"layer {node.name!r}: {outside} of {values.size} values of {role} (up to "
                    f"{np.abs(values).max():.3g}) do not fit {kind}; set LayerName → {node.layer} → Precision → {role}",
                    PrecisionWarning,
                    stacklevel=3,
                )


def build_model(
    spec: ModelSpec, hls_config: Mapping[str, Any] | None = None, settings: ProjectSettings | None = None
) -> HLSModel:
    """Return the graph of a model as it was read, one node per layer call; no pass has run."""
    model = HLSModel(spec, hls_config, settings)
    values: dict[TensorRef, Value] = {}
    layers = [replace(layer, keras_version=spec.keras_version) for layer in spec.layers]
    pending = [(layer, number) for layer in layers for number in range(len(layer.calls))]
    while pending:
        rest = [item for item in pending if not _add_call(model, values, *item)]
        if len(rest) == len(pending):
            raise ModelError(f"layer {rest[0][0].name!r} reads a tensor that no layer makes")
        pending = rest
    for ref in spec.outputs:
        if ref not in values:
            raise ModelError(f"the model's output {ref} is made by no layer")
    model.outputs = [values[ref] for ref in spec.outputs]
    return model


def _add_call(model: HLSModel, values: dict[TensorRef, Value], layer: LayerSpec, number: int) -> bool:
    refs = layer.calls[number]
    if any(ref not in values for ref in refs):
        return False
    inputs = [values[ref] for ref in refs]
    shapes = [v.shape for v in inputs]
    try:
        block = read_layer(layer, inputs)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # a config that Keras never wrote
        if isinstance(error, KConvertError):
            raise
        what = f"layer {layer.name!r} ({layer.class_name})"
        raise ModelError(f"{what}: its config does not make sense: {error}") from error
    if number:  # a layer called again: other inputs, same weights and settings
        for node in block.nodes:
            node.name += f":{number}"
            if isinstance(node, Weighted) and node.activation is not None:
                node.activation.name += f":{number}"
    for node in block.nodes:
        model.adopt(node)
        node.output.names = []  # no tensor of the Keras model, unless it is one of the block's outputs
    for index, output in enumerate(block.outputs):
        if any(n < 1 for n in output.shape):
            raise ModelError(f"layer {layer.name!r} makes an empty tensor {output.shape} of {shapes}")
        last = output.producer
        if isinstance(last, Weighted) and layer.config.get("use_bias") is False:  # zeros, for good
            last.preset = {"bias": FixedType(1, 1, signed=False), **last.preset}
        ref = TensorRef(layer.name, number, index)
        output.names.append(_trace_name(ref))
        values[ref] = output
    model.calls.append(LayerCall(layer.name, tuple(block.nodes), tuple(inputs), block.outputs))
    return True


def _trace_name(ref: TensorRef) -> str:
    """Return the key of a tensor in ``trace``; a layer called again, and its further outputs, add a number."""
    call = f":{ref.call}" if ref.call else ""
    return f"{ref.layer}{call}" + (f"[{ref.index}]" if ref.index else "")
