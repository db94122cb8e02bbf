"""Random quantised networks, and whether Keras computes them without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHAS: tuple[Any, ...] = (1, 1, 0.5, 2.0, "auto_po2", "auto")


@dataclass(frozen=True)
class Choice:
    """What one random network is made of; equal choices compile to equal objects unless their scales differ."""

    seed: int
    bits: int
    integer: int
    alpha: Any
    kind: str
    layers: int


def choices(count: int, first_seed: int = 0) -> list[Choice]:
    """Return `count` networks of one to four layers over quantizers, bits, integer bits and forms of alpha."""
    found = []
    for seed in range(first_seed, first_seed + count):
        random = np.random.default_rng(seed % 97)  # the architecture repeats, the weights do not
        found.append(
            Choice(
                seed=seed,
                bits=int(random.integers(2, 13)),
                integer=int(random.integers(0, 3)),
                alpha=ALPHAS[int(random.integers(len(ALPHAS)))],
                kind=str(random.choice(["dense", "dense", "conv1d", "conv2d", "depthwise"])),
                layers=int(random.integers(1, 5)),
            )
        )
    return found


def build(choice: Choice, keras: Any = None) -> Any:
    """Return the live QKeras model of `choice`, its weights random and partly beyond what its quantizers hold.

    `keras` is the Keras that the installed QKeras extends, if it is not Keras 3.
    """
    import qkeras

    if keras is None:
        import keras

    random = np.random.default_rng(choice.seed % 97 + 1000)
    weights = np.random.default_rng(choice.seed)

    def kernel() -> Any:
        which = random.integers(4)
        if which == 0:
            return qkeras.ternary(alpha=choice.alpha if isinstance(choice.alpha, str) else 1)
        if which == 1:
            return qkeras.binary(alpha=choice.alpha if isinstance(choice.alpha, str) else 1)
        return qkeras.quantized_bits(choice.bits, min(choice.integer, choice.bits - 1), 0, alpha=choice.alpha)

    def bias() -> Any:
        return qkeras.quantized_bits(choice.bits, min(choice.integer, choice.bits - 1), alpha=1)

    def activation() -> str:
        return str(
            random.choice(
                [
                    f"quantized_relu({choice.bits},{choice.integer})",
                    f"quantized_bits({choice.bits},{min(choice.integer, choice.bits - 1)},alpha=1)",
                    f"quantized_tanh({choice.bits})",
                    "ternary(alpha=1)" if choice.bits % 2 else "binary(alpha=1)",
                ]
            )
        )

    x = inputs = keras.Input({"dense": (6,), "conv1d": (8, 2)}.get(choice.kind, (5, 5, 2)), name="x")
    for number in range(choice.layers):
        name = f"layer_{number}"
        options = {"bias_quantizer": bias(), "name": name}
        if choice.kind == "dense" or number == choice.layers - 1:
            if len(x.shape) > 2:
                x = keras.layers.Flatten(name=f"flatten_{number}")(x)
            x = qkeras.QDense(int(random.integers(2, 6)), kernel_quantizer=kernel(), **options)(x)
        elif choice.kind == "conv1d":
            x = qkeras.QConv1D(3, 2, kernel_quantizer=kernel(), **options)(x) if x.shape[1] > 2 else x
        elif choice.kind == "depthwise":
            x = qkeras.QDepthwiseConv2D(2, depthwise_quantizer=kernel(), padding="same", **options)(x)
        else:
            x = qkeras.QConv2D(3, 2, kernel_quantizer=kernel(), padding="same", **options)(x)
        if number < choice.layers - 1:
            x = qkeras.QActivation(activation(), name=f"act_{number}")(x)
    model = keras.Model(inputs, x)
    for layer in model.layers:
        layer.set_weights([weights.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return model


def samples(shape: tuple[int, ...], seed: int, count: int = 40) -> np.ndarray:
    """Return inputs on the grid of the input's type and off it, and beyond its range at either end."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, *shape)) * 2
    x[: count // 2] = np.round(x[: count // 2] * 1024) / 1024
    x[-2], x[-1] = 100.0, -100.0
    return x.astype(np.float32)
