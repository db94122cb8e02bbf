"""The four trainings of a network on its way to approximate multipliers: float, 8 bits, learned noise, multipliers."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kconvert.tables import text_table

from .errors import ApproxError, check
from .layers import EMULATIONS, KINDS, MODES, Approximable
from .losses import default_loss
from .multipliers import ApproximateMultiplier
from .quantisation import best_scale
from .stored import bias_type, normalisation_types
from .training_data import BATCH, first_batches, fit_arguments, parts_of

log = logging.getLogger(__name__)

MOST_NOISE = 0.5
"""A layer with this much noise feels no pull towards more."""

CALIBRATION_BATCHES = 8
_KEPT_VALUES = 2**16
_LEFT_EXACT = (
    *("Conv1D", "Conv3D", "Conv2DTranspose", "SeparableConv1D", "SeparableConv2D", "EinsumDense", "DepthwiseConv1D"),
)


@dataclass(frozen=True)
class Stage:
    """How one of the four trainings runs unless told otherwise: stochastic gradient descent with momentum 0.9.

    Attributes:
        mode: Of the layers.
        epochs: How many.
        learning_rate: Of the first epoch.
        every: Epochs after which the learning rate is multiplied by `decay`, again and again.
        decay: That factor.
        weight_decay: Of the optimizer. Keras shrinks weights beside the momentum: a penalty whose gradient goes through
            a momentum of 0.9 is a tenth of this.
    """

    mode: str
    epochs: int
    learning_rate: float
    every: int
    decay: float
    weight_decay: float | None = None


STAGES = {
    "baseline": Stage("float", 10, 0.1, 5, 0.75, 1e-3),
    "quant": Stage("quantised", 1, 1e-3, 5, 0.1),
    "gradient": Stage("noisy", 3, 1e-3, 4, 0.1),
    "approx": Stage("approximate", 5, 1e-3, 2, 0.1),
}
"""The published settings for LeNet-5 (Trommer et al., ICCAD 2022); its penalty on weights is 1e-4."""


@dataclass(frozen=True, eq=False)
class Operands:
    """The integers that meet in one layer's multipliers.

    Attributes:
        name: Of the layer.
        inputs: int8 [n, fan_in], codes of one receptive field each; for a depthwise layer of one channel of it.
        weights: int8 [fan_in, outputs], codes of the kernel.
        outputs: int64 [places, outputs], the sums of exact products; n = places, for a depthwise layer times channels.
    """

    name: str
    inputs: npt.NDArray[np.int8]
    weights: npt.NDArray[np.int8]
    outputs: npt.NDArray[np.int64]


class ApproxNet:
    """A copy of a Keras model whose Dense, Conv2D and DepthwiseConv2D layers can compute with approximate multipliers.

    Other layers stay as they are, as do subclasses of the three, and convolutions in groups. Nested models are copied
    with what they hold; a layer that is used several times has one multiplier and one noise level.

    Every ``train_*`` method takes, beside `data` and `epochs`:

    * test: evaluate at the end, on the test part of the data, or the validation part, or what there is; the answer is
      ``history.test``, a dictionary.
    * optimizer: a Keras optimizer, which is copied, or its name; without it that of :data:`STAGES`, with its schedule.
    * learning_rate: of the default optimizer.
    * loss, metrics: as Keras takes them; without `loss` the cross entropy that suits labels and the last activation.
    * batch_size: of arrays, 128 by default.
    * recalibrate: choose the scales anew before each epoch (default except in ``train_approx``, where multipliers were
      chosen for those that are).
    * callbacks, verbose, and whatever else ``keras.Model.fit`` takes.

    They return Keras' History. Data are ``(x, y)`` or ``(x, y, sample_weight)`` arrays, a batched tf.data.Dataset, a
    keras.utils.PyDataset, an iterator, or a tuple of such: ``(train, validation)`` or ``(train, validation, test)``.

    Args:
        model: Sequential or functional, built, channels last. It is not changed.
        emulation: How mode "approximate" is computed: ``"table"``, products looked up in compiled C++, exact always;
            ``"low_rank"``, as ordinary products of wider operands, exact where the error map has few terms and within
            rounding of floats otherwise; ``"auto"``, low_rank where it is exact with up to 8 terms, else table.
        bound: For ``"low_rank"``: how much of the error map's root mean square terms may leave out, for fewer of them.

    Raises:
        ApproxError: the model is of another kind, or has no such layer, or two of one name.

    Attributes:
        model: The Keras model that is trained; it can be used and saved as any.
    """

    def __init__(
        self, model: Any, *, emulation: Literal["auto", "table", "low_rank"] = "auto", bound: float = 0.0
    ) -> None:
        check(emulation in EMULATIONS, f"emulation is one of {', '.join(EMULATIONS)}, received {emulation!r}")
        self.model = _approximable_copy(model)
        self._layers = [layer for layer in self.model._flatten_layers() if isinstance(layer, Approximable)]
        check(bool(self._layers), "the model has no Dense, Conv2D or DepthwiseConv2D layer")
        names = [layer.name for layer in self._layers]
        double = {name for name in names if names.count(name) > 1}
        check(not double, f"several layers (of nested models) are named {min(double, default='')!r}: rename them")
        self._loss: tuple[Any, Any] | None = None
        self._given: dict[str, ApproximateMultiplier] = {}
        for layer in self._layers:
            layer.emulation, layer.bound = emulation, bound

    @property
    def layers(self) -> list[Approximable]:
        """The layers that can be approximated, in the model's order."""
        return list(self._layers)

    def layer(self, name: str) -> Approximable:
        """Return one of :attr:`layers`.

        Raises:
            ApproxError: there is none of this name.
        """
        found = {layer.name: layer for layer in self._layers}
        if name not in found:
            raise ApproxError(f"no layer {name!r} to approximate; there are {', '.join(found)}")
        return found[name]

    # What is known of each layer

    @property
    def sigma(self) -> dict[str, float]:
        """The learned noise level of each layer; a sign has no meaning."""
        return {layer.name: float(layer.sigma.numpy()) for layer in self._layers}

    @property
    def tolerances(self) -> dict[str, float]:
        """The error that each layer bears, as a share of the standard deviation of its output before the bias."""
        return {name: abs(sigma) for name, sigma in self.sigma.items()}

    @property
    def multipliers(self) -> dict[str, ApproximateMultiplier]:
        """The assigned multipliers."""
        return {layer.name: found for layer in self._layers if (found := layer.multiplier) is not None}

    @property
    def opcount(self) -> dict[str, int]:
        """Multiplications of each layer for one sample.

        Raises:
            ApproxError: an axis of the model's input is of unknown size.
        """
        counts = dict.fromkeys((layer.name for layer in self._layers), 0)

        def count(layer: Approximable, x: Any) -> None:
            places = math.prod(layer.compute_output_shape(x.shape)[1:-1])
            counts[layer.name] += places * math.prod(layer.kernel.shape)

        graph = self.model._functional if isinstance(self.model, keras.Sequential) else self.model
        inputs = keras.tree.map_structure(_one_sample, graph.input)
        with self._observed(count, "float"):
            self.model(inputs, training=False)
        return counts

    def layer_operands(self, data: Any, n_batches: int = 1, batch_size: int | None = None) -> Iterator[Operands]:
        """Yield, layer by layer, the integers that the quantised network multiplies on the first batches of data.

        Inputs alone, an array, are data enough.
        """
        seen: dict[str, list[npt.NDArray[Any]]] = {layer.name: [] for layer in self._layers}
        self._run(data, n_batches, batch_size, lambda layer, x: seen[layer.name].append(x.numpy()), "quantised")
        for layer in self._layers:
            each = [layer.operands(x) for x in seen.pop(layer.name)]
            if each:
                rows, weights, sums = zip(*each, strict=True)
                yield Operands(layer.name, np.concatenate(rows), weights[0], np.concatenate(sums))

    # Settings

    @property
    def mode(self) -> str:
        """What the layers compute, one of :data:`.layers.MODES`; layers without a multiplier quantise at most."""
        modes = {layer.mode for layer in self._layers}
        return "approximate" if "approximate" in modes else modes.pop()

    @mode.setter
    def mode(self, mode: str) -> None:
        check(mode in MODES, f"mode is one of {', '.join(MODES)}, received {mode!r}")
        check(mode != "approximate" or bool(self.multipliers), "no multipliers are assigned: call assign() first")
        for layer in self._layers:
            layer.mode = "quantised" if mode == "approximate" and layer.multiplier_name is None else mode
        if mode != "float" and not self._calibrated:
            log.warning("the scales of the codes are not chosen yet: call calibrate(), or train in this mode")
        self._forget_compiled()

    def assign(self, multipliers: Mapping[str, ApproximateMultiplier] | ApproximateMultiplier) -> None:
        """Give each named layer its multiplier, or the same one to all.

        Raises:
            ApproxError: there is no layer of a name.
        """
        if isinstance(multipliers, ApproximateMultiplier):
            multipliers = dict.fromkeys((layer.name for layer in self._layers), multipliers)
        chosen = [(self.layer(name), multiplier) for name, multiplier in multipliers.items()]
        for layer, multiplier in chosen:
            layer.assign(multiplier)
            self._given[layer.name] = multiplier
        self._forget_compiled()

    def calibrate(self, data: Any, *, batch_size: int | None = None, power_of_two: bool = True) -> None:
        """Choose the scales of inputs and weights, those of least squared error on the first batches of the data.

        Trainings do this themselves. Inputs alone, an array, are data enough. Scales that are no powers of two fit
        somewhat better, but are for study: hardware multiplies by them in fixed point only approximately.
        """
        kept: dict[str, list[npt.NDArray[Any]]] = {layer.name: [] for layer in self._layers}
        chosen = np.random.default_rng(0)

        def keep(layer: Approximable, x: Any) -> None:
            values = x.numpy().ravel()
            some = values if values.size <= _KEPT_VALUES else chosen.choice(values, _KEPT_VALUES)
            kept[layer.name] += [some, values[[values.argmin(), values.argmax()]]] if values.size else []

        self._run(data, CALIBRATION_BATCHES, batch_size, keep, "float")
        for layer in self._layers:
            if kept[layer.name]:
                layer.input_scale.assign(best_scale(np.concatenate(kept[layer.name]), power_of_two=power_of_two))
            layer.weight_scale.assign(best_scale(layer.kernel.numpy(), power_of_two=power_of_two))

    # Training

    def train_baseline(self, data: Any, epochs: int | None = None, test: bool = False, **options: Any) -> Any:
        """Train in floating point, as the model was."""
        return self._train("baseline", data, epochs, test, **options)

    def train_quant(self, data: Any, epochs: int | None = None, test: bool = False, **options: Any) -> Any:
        """Train with inputs and weights of 8 bits."""
        return self._train("quant", data, epochs, test, **options)

    def train_gradient(
        self,
        data: Any,
        epochs: int | None = None,
        test: bool = False,
        *,
        lmbd: float = 0.2,
        initial_noise: float = 0.025,
        **options: Any,
    ) -> Any:
        """Learn how much noise each layer bears: σ, in units of its output's standard deviation, with the weights.

        The loss is that of the task minus ``lmbd · Σ_l (c_l / C) · min(|σ_l|, 0.5)``, where c_l are the multiplications
        of a layer and C those of all. A table of σ is written after each epoch, unless verbose is 0; it is also in
        ``history.sigma``, a dictionary for each epoch.

        Args:
            data: As for the others.
            epochs: As for the others.
            test: As for the others.
            lmbd: How strongly noise is wanted.
            initial_noise: σ of every layer at the beginning.
            **options: As for the others.
        """
        counts = self.opcount
        share = {name: count / sum(counts.values()) for name, count in counts.items()}
        table = _SigmaTable(self, counts, options.get("verbose", "auto"))
        for layer in self._layers:
            layer.sigma.assign(initial_noise)
            layer.sigma.trainable = True
            layer.sigma.regularizer = _Pull(lmbd * share[layer.name])
        try:
            callbacks = [table, *_as_list(options.pop("callbacks", None))]
            history = self._train("gradient", data, epochs, test, callbacks=callbacks, **options)
        finally:
            for layer in self._layers:
                layer.sigma.trainable, layer.sigma.regularizer = False, None
            self._forget_compiled()
        history.sigma = table.epochs
        return history

    def train_approx(self, data: Any, epochs: int | None = None, test: bool = False, **options: Any) -> Any:
        """Train with the assigned multipliers, so that the weights get used to them.

        Raises:
            ApproxError: none are assigned.
        """
        return self._train("approx", data, epochs, test, **{"recalibrate": False, **options})

    def _train(
        self,
        name: str,
        data: Any,
        epochs: int | None,
        test: bool,
        *,
        optimizer: Any = None,
        learning_rate: float | None = None,
        loss: Any = None,
        metrics: Any = None,
        callbacks: Any = None,
        batch_size: int | None = None,
        recalibrate: bool = True,
        **fit: Any,
    ) -> Any:
        stage, parts = STAGES[name], parts_of(data)
        batches, train = first_batches(parts.train, CALIBRATION_BATCHES, batch_size)
        own = _as_list(callbacks)
        if stage.mode != "float":
            if recalibrate or not self._calibrated:
                self.calibrate(_list_of(batches))
            own += [_Recalibration(self, batches)] if recalibrate else []
        if optimizer is None:
            rate = stage.learning_rate if learning_rate is None else learning_rate
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=stage.weight_decay)
            own.append(keras.callbacks.LearningRateScheduler(_steps(rate, stage)))
        else:
            check(learning_rate is None, "learning_rate is for the default optimizer: give it to the optimizer instead")
        self.mode = stage.mode
        self._compile(batches[0], loss, metrics, optimizer)
        if parts.validation is not None:
            fit.setdefault("validation_data", parts.validation)
        arguments = {**fit_arguments(train, batch_size), "epochs": epochs or stage.epochs, "callbacks": own, **fit}
        history = self.model.fit(**arguments)
        if test:
            part = parts.test if parts.test is not None else parts.validation
            if part is None:
                log.warning("the data has neither a validation nor a test part: testing on what it was trained on")
            part = train if part is None else part
            history.test = self.evaluate(part, batch_size, verbose=fit.get("verbose", "auto"))
        return history

    def _compile(self, batch: tuple[Any, Any], loss: Any, metrics: Any, optimizer: Any = "sgd") -> None:
        if loss is not None:
            self._loss = loss, metrics
        elif self._loss is None or metrics is not None:
            found, usual = default_loss(self.model, batch[1])
            self._loss = found, metrics or usual
        chosen = keras.optimizers.get(optimizer)
        chosen = type(chosen).from_config(chosen.get_config())  # one that has trained knows other variables
        self.model.compile(chosen, *self._loss_and_metrics(), jit_compile=False)

    def _loss_and_metrics(self) -> tuple[Any, ...]:
        loss, metrics = self._loss or (None, None)
        return loss, None, copies_of(metrics)

    # Use

    def evaluate(
        self, data: Any, batch_size: int | None = None, *, loss: Any = None, **options: Any
    ) -> dict[str, float]:
        """Return loss and metrics, of the test part, or the validation part, or the data as they are."""
        parts = parts_of(data)
        part = next(each for each in (parts.test, parts.validation, parts.train) if each is not None)
        if not self.model.compiled or loss is not None:
            batches, part = first_batches(part, 1, batch_size)
            self._compile(batches[0], loss, None)
        return dict(self.model.evaluate(**fit_arguments(part, batch_size), return_dict=True, **options))

    def predict(self, x: Any, batch_size: int = BATCH) -> Any:
        """Return the model's answers as the hardware gives them, float64.

        Codes, products and sums are exact; what stands between the layers (normalisations, pooling, additions) is
        computed in double precision.

        Args:
            x: Array, or a list or dictionary of arrays for a model of several inputs.
            batch_size: Samples that are computed at once.
        """
        exact = in_double_precision(self.model)
        size = len(keras.tree.flatten(x)[0])
        answers = []
        for start in range(0, size, batch_size):
            batch = keras.tree.map_structure(lambda a, s=start: np.asarray(a)[s : s + batch_size], x)
            answers.append(keras.tree.map_structure(ops.convert_to_numpy, exact(batch, training=False)))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *answers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a ``.keras`` file: weights, scales, noise levels, modes and the multipliers' tables."""
        self.model.save(path)

    def convert(self, **options: Any) -> Any:
        """Return :func:`kconvert.convert_from_keras_model` of the model, with its options.

        Multipliers given to :meth:`assign` become hardware by their own C++, where they have it; those that came with a
        file by their table, unless they are members of the library. See docs/approx_hardware.md.

        Raises:
            ApproxError: the C++ of a multiplier makes other products than its table.
        """
        from kconvert import convert_from_keras_model

        from .conversion import trusting

        with trusting(self._given.values()):
            return convert_from_keras_model(self.model, **options)

    # Within

    @property
    def _calibrated(self) -> bool:
        return any(float(layer.input_scale.numpy()) != 1.0 for layer in self._layers)

    def _forget_compiled(self) -> None:
        """Graphs of the model hold the modes and multipliers that they were traced with."""
        self.model.train_function = self.model.test_function = self.model.predict_function = None

    def _run(self, data: Any, n_batches: int, batch_size: int | None, observer: Any, mode: str) -> None:
        part = (data, data) if isinstance(data, np.ndarray) else parts_of(data).train  # labels are not looked at
        batches, _ = first_batches(part, n_batches, batch_size)
        with self._observed(observer, mode):
            for x, _ in batches:
                self.model(x, training=False)

    @contextmanager
    def _observed(self, observer: Any, mode: str) -> Iterator[None]:
        """Let the layers compute in `mode`, and show `observer` what they read, in eager calls within the block."""
        modes = [layer.mode for layer in self._layers]
        for layer in self._layers:
            layer.mode, layer.observer = mode, observer
        try:
            yield
        finally:
            for layer, before in zip(self._layers, modes, strict=True):
                layer.mode, layer.observer = before, None


def load(path: str | os.PathLike[str]) -> ApproxNet:
    """Return the network of a ``.keras`` file that :meth:`ApproxNet.save` wrote.

    Raises:
        ApproxError: the model has no layer that can be approximated.
    """
    return ApproxNet(keras.models.load_model(path, compile=False))


def in_double_precision(model: Any) -> Any:
    """Return a copy of a model that computes in float64 and looks products up in tables."""
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers(include_self=False)}
    with keras.saving.custom_object_scope(classes):
        copy = type(model).from_config(_widened(model.get_config()))
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        if isinstance(layer, Approximable):
            layer.emulation = "table"
            if layer.bias is not None:
                bias, unit = layer.bias.numpy(), float(layer.input_scale.numpy() * layer.weight_scale.numpy())
                layer.bias.assign(bias_type(bias, math.frexp(unit)[1] - 1).quantize(bias))
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.scale and layer.center:
            _store_as_hardware_does(layer)
    return copy


def _store_as_hardware_does(norm: Any) -> None:
    """Give a normalisation the factor and the offset that firmware has."""
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    offset = beta - mean * factor
    of_factor, of_offset = normalisation_types(factor, offset)
    stored = [of_factor.quantize(factor), of_offset.quantize(offset)]
    norm.epsilon = 0.0
    norm.set_weights([*stored, np.zeros_like(mean), np.ones_like(mean)])


def _widened(config: Any) -> Any:
    """A config with float64 for float32, in nested models too."""
    if isinstance(config, dict):
        return {k: "float64" if k == "dtype" and _is_single(v) else _widened(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_widened(value) for value in config)
    return config


def _is_single(dtype: Any) -> bool:
    return dtype == "float32" or (isinstance(dtype, dict) and dtype.get("config", {}).get("name") == "float32")


def _approximable_copy(model: Any) -> Any:
    kinds = keras.Sequential | keras.Model
    check(
        isinstance(model, kinds) and hasattr(model, "_run_through_graph" if not _is_sequential(model) else "layers"),
        f"expected a Sequential or functional Keras model, received {type(model).__name__}",
    )
    check(model.built, f"model {model.name!r} is not built yet: give it an Input, or call it on data")
    pairs: list[tuple[Any, Any]] = []

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        kind = KINDS.get(type(layer))
        if kind is not None and getattr(layer, "groups", 1) == 1:
            copy = kind.from_config({**config, "mode": "float"})
        else:
            if type(layer).__name__ in _LEFT_EXACT or kind is not None:
                log.warning("layer %r (%s) stays exact: it cannot be approximated", layer.name, type(layer).__name__)
            copy = type(layer).from_config(config)
        pairs.append((layer, copy))
        return copy

    nested = any(isinstance(layer, keras.Model) for layer in model.layers)
    copy = keras.models.clone_model(model, clone_function=copied, **({"recursive": True} if nested else {}))
    for layer, new in pairs:
        if isinstance(new, Approximable) and not isinstance(layer, Approximable):
            new.kernel.assign(layer.kernel)
            if layer.bias is not None:
                new.bias.assign(layer.bias)
        elif isinstance(layer, keras.layers.Layer):
            new.set_weights(layer.get_weights())
    return copy


def _is_sequential(model: Any) -> bool:
    return isinstance(model, keras.Sequential)


def _one_sample(tensor: Any) -> npt.NDArray[Any]:
    shape = tensor.shape[1:]
    check(None not in shape, f"multiplications are counted for an input of known size, not {list(tensor.shape)}")
    return np.zeros((1, *shape), tensor.dtype)


def copies_of(metrics: Any) -> Any:
    """Return metrics of the same kind, for a model compiled anew."""
    return keras.tree.map_structure(
        lambda one: type(one).from_config(one.get_config()) if isinstance(one, keras.metrics.Metric) else one, metrics
    )


def _list_of(batches: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from batches


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]


def _steps(rate: float, stage: Stage) -> Any:
    return lambda epoch, _: rate * stage.decay ** (epoch // stage.every)


class _Pull:
    """The part of the loss that makes a noise level grow."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, sigma: Any) -> Any:
        return -self.strength * ops.minimum(ops.abs(sigma), MOST_NOISE)


class _Recalibration(keras.callbacks.Callback):  # type: ignore[misc]
    """Chooses the scales before each epoch but the first, whose were chosen just now."""

    def __init__(self, net: ApproxNet, batches: list[tuple[Any, Any]]) -> None:
        super().__init__()
        self.net, self.batches = net, batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch:
            self.net.calibrate(_list_of(self.batches))


class _SigmaTable(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the noise levels of each epoch, and writes them as a table."""

    def __init__(self, net: ApproxNet, counts: Mapping[str, int], verbose: Any) -> None:
        super().__init__()
        self.net, self.counts, self.shown = net, counts, verbose not in (0, "0")
        self.epochs: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(self.net.sigma)
        if self.shown:
            rows = [(name, self.counts[name], sigma) for name, sigma in self.epochs[-1].items()]
            sys.stdout.write(f"\n{text_table(('layer', 'multiplications', 'sigma'), rows)}\n")
