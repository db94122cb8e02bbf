"""Which inputs the nodes of a layer read, before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kconvert.errors import did_you_mean

from .errors import LayerError, check

Wiring = npt.NDArray[np.int32]
Shape = tuple[int, ...]
KINDS = ("random", "serial", "pointwise", "depthwise", "gauss")


def wire(kind: str, inputs: Shape, outputs: Shape, n_inputs: int, seed: int) -> Wiring:
    """Return int32 [units, n_inputs], the input that each pin reads, as an index in the flattened input.

    Args:
        kind: ``"random"``: pins are dealt from a shuffled deck of the inputs, so that all are read equally often;
            ``"serial"``: node k reads the n_inputs inputs from k * n_inputs on, modulo their number;
            for images, height x width x channels: ``"pointwise"``: channels of the node's own pixel; ``"depthwise"``:
            pixels of its own channel; ``"gauss"``: a neighbourhood of the node's place, as wide as the ratio of the
            sizes, wrapping around at the borders. An empty string is ``"random"``, too.
        inputs: Shape of the input without the batch.
        outputs: Shape of the output without the batch.
        n_inputs: Pins of a node.
        seed: The same seed gives the same wiring.

    Raises:
        LayerError: the kind is unknown, or does not fit the shapes.
    """
    check_kind(kind)
    makers: dict[str, Callable[[Shape, Shape, int, np.random.Generator], Wiring]] = {
        "random": _random,
        "serial": _serial,
        "pointwise": _pointwise,
        "depthwise": _depthwise,
        "gauss": _gauss,
    }
    return makers[kind or "random"](inputs, outputs, n_inputs, np.random.default_rng(seed))


def check_kind(kind: str) -> None:
    """Raise LayerError unless :func:`wire` knows the kind."""
    if not isinstance(kind, str) or kind not in ("", *KINDS):
        meant = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        raise LayerError(f"connection {kind!r} is unknown{meant} (known: {', '.join(KINDS)})")


def deal(cards: int, hands: int, size: int, rng: np.random.Generator) -> Wiring:
    """Return int32 [hands, size] from a deck of cards that is shuffled again when it runs out.

    A hand has no card twice unless it takes more than there are; cards are dealt equally often, give or take one.
    """
    dealt = np.empty((hands, size), np.int32)
    deck = rng.permutation(cards)
    for hand in dealt:
        held = deck[:size]
        deck = deck[size:]
        while len(held) < size:  # the deck ran out: what is in hand goes below the new one
            fresh = rng.permutation(cards)
            fresh = np.concatenate([fresh[~np.isin(fresh, held)], fresh[np.isin(fresh, held)]])
            need = size - len(held)
            held, deck = np.concatenate([held, fresh[:need]]), fresh[need:]
        hand[:] = held
    return dealt


def _random(inputs: Shape, outputs: Shape, n_inputs: int, rng: np.random.Generator) -> Wiring:
    return deal(math.prod(inputs), math.prod(outputs), n_inputs, rng)


def _serial(inputs: Shape, outputs: Shape, n_inputs: int, _: np.random.Generator) -> Wiring:
    pins = np.arange(math.prod(outputs) * n_inputs, dtype=np.int32)
    return (pins % math.prod(inputs)).reshape(-1, n_inputs)


def _pointwise(inputs: Shape, outputs: Shape, n_inputs: int, rng: np.random.Generator) -> Wiring:
    _check_images("pointwise", inputs, outputs)
    check(inputs[:2] == outputs[:2], f"pointwise wiring keeps height and width; received {inputs} -> {outputs}")
    index = np.arange(math.prod(inputs), dtype=np.int32).reshape(-1, inputs[2])
    return np.concatenate([pixel[deal(inputs[2], outputs[2], n_inputs, rng)] for pixel in index])


def _depthwise(inputs: Shape, outputs: Shape, n_inputs: int, rng: np.random.Generator) -> Wiring:
    _check_images("depthwise", inputs, outputs)
    check(inputs[2] == outputs[2], f"depthwise wiring keeps the channels; received {inputs} -> {outputs}")
    index = np.arange(math.prod(inputs), dtype=np.int32).reshape(-1, inputs[2])
    nodes = math.prod(outputs[:2])
    planes = [index[:, c][deal(len(index), nodes, n_inputs, rng)] for c in range(inputs[2])]
    return np.stack(planes, axis=1).reshape(-1, n_inputs)


def _gauss(inputs: Shape, outputs: Shape, n_inputs: int, rng: np.random.Generator) -> Wiring:
    _check_images("gauss", inputs, outputs)
    check(math.prod(inputs) >= n_inputs, f"gauss wiring: {inputs} has fewer than {n_inputs} inputs to choose from")
    ratio = np.array(inputs) / np.array(outputs)
    wiring = np.empty((math.prod(outputs), n_inputs), np.int32)
    for node, place in enumerate(np.ndindex(outputs)):
        centre, spread, chosen = (np.array(place) + 0.5) * ratio - 0.5, ratio.copy(), np.empty(0, np.int64)
        while len(chosen) < n_inputs:
            drawn = np.rint(rng.normal(centre, spread, (4 * n_inputs, 3))).astype(np.int64) % inputs
            chosen = np.concatenate([chosen, np.ravel_multi_index(tuple(drawn.T), inputs)])
            chosen = chosen[np.sort(np.unique(chosen, return_index=True)[1])][:n_inputs]  # first come, no repeats
            spread *= 1.5  # a neighbourhood may be too small to have enough inputs
        wiring[node] = chosen
    return wiring


def _check_images(kind: str, inputs: Shape, outputs: Shape) -> None:
    check(
        len(inputs) == len(outputs) == 3,
        f"{kind} wiring is for images: input (height, width, channels) and units of three numbers; "
        f"received {inputs} -> {outputs}",
    )
