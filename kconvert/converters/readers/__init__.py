"""Readers: from a live Keras model or a model file to the neutral form of :mod:`kconvert.converters.spec`.

Files are read by json, zipfile and h5py alone. Nothing stored in a file is executed, unless that is asked for: code
inside a Lambda layer stays a string in its config, and it is up to the layer converters to refuse the layer.
"""

from __future__ import annotations

import os

from kconvert.converters.readers.by_keras import code_in, read_unsafe
from kconvert.converters.readers.files import read_file
from kconvert.converters.readers.live import is_keras_model, read_live
from kconvert.converters.spec import ModelSpec
from kconvert.errors import ModelError


def read_model(
    source: object, weights: str | os.PathLike[str] | None = None, *, allow_unsafe: bool = False
) -> ModelSpec:
    """Read a Keras model of any version into the neutral form.

    Args:
        source: A live Keras 2 (``tf.keras``, ``tf_keras``) or Keras 3 model, a `ModelSpec` (returned as it
            is), or the path of a ``.keras`` archive, a full-model ``.h5``/``.hdf5`` or a ``.json``.
        weights: File that holds the weights, for an architecture without them (``.json``); for a model file
            it replaces the weights stored there. Any of Keras' HDF5 layouts, or a ``.keras`` archive.
        allow_unsafe: Trust the file. One that holds Python code (Lambda layers) is loaded by Keras, which runs
            it; and contents may unpack to vastly more than the file holds, which by default counts as an attempt
            to exhaust the memory.

    Returns:
        The model with every nested model flattened into it.

    Raises:
        ModelError: The model or file cannot be read; the message says what is wrong and where.
        UnsupportedLayerError: The graph holds a call that cannot be expressed as layer calls on tensors.
        MissingPackageError: A file with weights is read and h5py is not installed; or a file with code, and Keras
            is not.
    """
    if isinstance(source, str | os.PathLike):
        spec = read_file(source, weights, allow_unsafe=allow_unsafe)
        return read_unsafe(source, weights, spec) if allow_unsafe and any(map(code_in, spec.layers)) else spec
    if weights is not None:
        raise ModelError("weights= goes with a model file; a live model already holds its weights")
    if isinstance(source, ModelSpec):
        return source
    if is_keras_model(source):
        return read_live(source)
    raise ModelError(
        f"cannot read a model from {type(source).__module__}.{type(source).__qualname__}; "
        "give a Keras model, or the path of a .keras, .h5, .hdf5 or .json file"
    )


__all__ = ["read_model"]
