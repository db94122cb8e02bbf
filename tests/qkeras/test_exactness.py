"""The hardware answers exactly what the quantised model answered in Python.

Every tensor of every random network is compared, all values of it, with ``np.array_equal``:

* with tests/qkeras/evaluate.py, which computes what the live quantised model means, in integers, and shares neither
  readers nor passes nor the table of quantizers with the conversion;
* where that finds that Keras has nothing to round in float32 for these inputs (the condition is stated there), the
  last tensor with the prediction of the QKeras model itself.

A few networks have scales of more bits than the 32 the hardware gives one. Those the evaluation rounds to the type
that the converted model declares, having checked that this loses no more than half of the type's last bit; they are
counted on their own. A softmax at the end is left out: the tensor before it is compared.

Keras is given the inputs as the input layer's type holds them; the hardware gets them raw, off its grid and beyond
its range, and says so.

``make test-exactness`` runs 2,000 networks; the ordinary suite a tenth of them (KCONVERT_EXACTNESS sets the number).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel
from kconvert.csim import library
from kconvert.errors import PrecisionWarning, UnsupportedLayerError
from tests.qkeras.evaluate import Evaluation
from tests.qkeras.nets import WEIGHTS_PER_ARCHITECTURE, Choice, build, choices, randomise, samples

COUNT = int(os.environ.get("KCONVERT_EXACTNESS", "200"))
CHUNK = 4 * WEIGHTS_PER_ARCHITECTURE


@pytest.fixture(scope="session")
def qkeras() -> Any:
    return pytest.importorskip("qkeras")


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_random_networks_answer_as_the_quantised_model(
    qkeras: Any, first: int, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = count_objects(monkeypatch)
    found = run(choices(COUNT)[first : first + CHUNK])
    for name, value in (*found.items(), ("compiled objects", len(objects))):
        record_property(name, value)  # shown at the end of the run
    # not in every chunk, but if there were none here, the condition would call everything inexact
    assert found["equal to Keras"] > 0 or first > 0


def count_objects(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Return a set that the compiled objects in use will be in."""
    objects: set[Path] = set()
    compile_object = library.compile_object

    def remember(*args: Any) -> Path:
        path = compile_object(*args)
        objects.add(path)
        return path

    monkeypatch.setattr(library, "compile_object", remember)
    return objects


def run(networks: list[Choice], keras: Any = None) -> dict[str, int]:
    """Compare all `networks`; return how many there were of each kind."""
    if keras is None:
        import keras
    found = {"networks": len(networks), "equal to Keras": 0, "with rounded scales": 0}
    model, architecture = None, -1
    for choice in networks:
        if choice.architecture != architecture:
            keras.backend.clear_session()
            model, architecture = build(choice.architecture, keras), choice.architecture
            unsoftened = before_softmax(model, keras)
        randomise(model, choice.seed)
        comparison = Comparison(choice, model, unsoftened)
        comparison.with_integers()
        found["with rounded scales"] += bool(comparison.evaluation.rounded)
        if not comparison.evaluation.inexact and not comparison.evaluation.rounded:
            comparison.with_keras()
            found["equal to Keras"] += 1
    return found


def before_softmax(model: Any, keras: Any) -> Any:
    """Return `model`, or the part of it that ends before a softmax."""
    last = model.layers[-1]
    return keras.Model(model.inputs, last.input) if last.name == "softmax" else model


@dataclass
class Comparison:
    """One network, converted and evaluated.

    Attributes:
        choice: Which one it is.
        model: The live model.
        unsoftened: The same without a softmax at the end.
    """

    choice: Choice
    model: Any
    unsoftened: Any

    def __post_init__(self) -> None:
        config = kconvert.config_from_keras_model(self.model, granularity="name")
        config["LayerName"]["x"]["Precision"]["result"] = self.choice.input_type
        self.hls_model: HLSModel = kconvert.convert_from_keras_model(self.model, config)
        self.hls_model.compile()
        self.x = samples(self.model.input_shape[1:], self.choice.seed)
        with pytest.warns(PrecisionWarning, match="outside"):
            self.trace = self.hls_model.trace(self.x)
        self.evaluation = Evaluation(self.model, self.hls_model, self.x)

    def with_integers(self) -> None:
        """Every tensor the hardware shows has the values that the quantised model means."""
        for layer in self.unsoftened.layers:
            key = f"{layer.name}_{type(getattr(layer, 'activation', None)).__name__}"  # of an activation inside of it
            answers = self.trace.get(key, self.trace.get(layer.name))
            if answers is not None:
                wanted = self.evaluation.output(layer.name)
                assert np.array_equal(answers, wanted), self._difference(layer.name, answers, wanted, "the integers")

    def with_keras(self) -> None:
        """The last tensor is that of the QKeras model."""
        quantised = self.hls_model.inputs[0].known_type().quantize(self.x).astype(np.float32)
        wanted = self.unsoftened.predict_on_batch(quantised)
        if self.unsoftened is self.model:
            with pytest.warns(PrecisionWarning, match="outside"):
                answers = self.hls_model.predict(self.x)
        else:
            answers = self.evaluation.output(self.unsoftened.layers[-1].name)  # what the hardware had there as well
        assert np.array_equal(answers, wanted), self._difference("the output", answers, wanted, "Keras")

    def _difference(self, name: str, answers: np.ndarray, wanted: np.ndarray, what: str) -> str:
        distance = np.abs(answers - wanted)
        return (
            f"{self.choice}: {name} differs from {what} in {np.count_nonzero(distance)} of {distance.size} values, by "
            f"up to {distance.max()}\n{self.hls_model}"
        )


# ***** what is refused on purpose *****


def _refused() -> dict[str, Any]:
    """Return layers that do not convert, as functions of QKeras."""
    per_channel = [0.5, 1.0, 2.0]
    return {
        "draws random numbers at inference": lambda q: q.QActivation("bernoulli(alpha=1)"),
        "logarithms to a grid": lambda q: q.QActivation("quantized_ulaw(6,2)"),
        "qnoise_factor must be 1": lambda q: q.QActivation(q.quantized_bits(4, 1, alpha=1, qnoise_factor=0.5)),
        "what is in the batch": lambda q: q.QActivation(q.quantized_bits(4, 1, alpha="auto")),
        "per_channel": lambda q: q.QAdaptiveActivation(
            "quantized_relu", 6, current_step=9, ema_freeze_delay=2, per_channel=True
        ),
        "one scale per input channel": lambda q: q.QConv2DTranspose(
            2,
            2,
            kernel_quantizer=q.quantized_bits(4, 1, alpha=per_channel),
            bias_quantizer="quantized_bits(4,1,alpha=1)",
        ),
        "last axis": lambda q: q.QConv2D(
            2, 2, kernel_quantizer=q.quantized_bits(4, 0, alpha="auto", scale_axis=2), use_bias=False
        ),
    }


@pytest.mark.parametrize("why", _refused())
def test_a_combination_without_exact_hardware_is_refused_by_name(qkeras: Any, why: str) -> None:
    import keras

    x = keras.Input((4, 4, 3), name="x")
    layer = _refused()[why](qkeras)
    layer.name = "strange"
    with pytest.raises(UnsupportedLayerError, match=f"'strange'.*{why}"):
        kconvert.convert_from_keras_model(keras.Model(x, layer(x)))
