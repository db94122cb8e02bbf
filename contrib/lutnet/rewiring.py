"""Learning the wiring while training: pins that matter little move to inputs that their node misses.

As with sparse networks that drop the smallest weights and grow those of the largest gradient: the pin along which a
node's read changes least is freed, its table becomes the mean over that pin, and the pin goes to an input that covaries
with the gradient of the read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from .errors import check
from .layers import DifferentiableLut


class Rewire(keras.callbacks.Callback):  # type: ignore[misc]
    """Moves pins of layers of a Sequential model every few batches: one pin of a node a time, the idlest first.

    Needs TensorFlow. The layers act on the last axis of their input.

    Args:
        x: Training inputs.
        y: Their targets, as given to ``fit``.
        layers: Layers or their names; by default the first DifferentiableLut.
        every: Batches from one time to the next.
        share: Share of the nodes that get a pin moved the first time; it falls to 0, on a straight line.
        until: When it is 0: after this share of the whole training. The rest settles the tables.
        frames: Samples to judge by.
        seed: Which ones.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        layers: Sequence[Any] = (),
        *,
        every: int = 20,
        share: float = 0.1,
        until: float = 0.7,
        frames: int = 1024,
        seed: int = 1,
    ) -> None:
        super().__init__()
        check(0 < share <= 1 and 0 < until <= 1, "Rewire: share and until are above 0 and up to 1")
        check(every > 0 and frames > 0, "Rewire: every and frames have to be positive")
        self.x, self.y, self.layers = x, y, tuple(layers)
        self.every, self.share, self.until, self.frames = every, share, until, frames
        self.rng, self.done = np.random.default_rng(seed), 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers."""
        luts = [layer for layer in self.model.layers if isinstance(layer, DifferentiableLut) and layer.binary]
        named = {layer.name: layer for layer in luts}
        names = [getattr(layer, "name", layer) for layer in self.layers] or [layer.name for layer in luts[:1]]
        check(
            isinstance(self.model, keras.Sequential) and bool(names) and named.keys() >= set(names),
            "Rewire: the model has to be Sequential, and the layers binary DifferentiableLut of it",
        )
        self.chosen = [named[name] for name in names]
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move pins, where it is time to."""
        self.done += 1
        total = self.params["epochs"] * (self.params["steps"] or np.inf)
        share = self.share * (1 - self.done / total / self.until)
        if self.done % self.every == 0 and share > 0:
            picked = self.rng.choice(len(self.x), min(self.frames, len(self.x)), replace=False)
            for layer in self.chosen:
                self._move(layer, *self._judge(layer, self.x[picked], self.y[picked]), share)

    def _judge(self, layer: DifferentiableLut, x: Any, y: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        from .training import judge_wiring

        place = self.model.layers.index(layer)
        for before in self.model.layers[:place]:
            x = before(x)
        kept = [(v, v.numpy()) for v in self.model.non_trainable_variables]
        read = layer(x, training=True)
        with tf.GradientTape() as tape:
            tape.watch(read)
            scores = read
            for after in self.model.layers[place + 1 :]:
                scores = after(scores, training=True)
            loss = self.model.compute_loss(x, y, scores)
        gradient = tape.gradient(loss, read)
        for variable, value in kept:  # looking must not change what inference goes by
            variable.assign(value)
        norm = (layer.gamma, layer.beta) if layer.batch_norm else None
        table, wiring = tf.identity(layer.table.value), tf.identity(layer.wiring.value)
        missed, matters = judge_wiring(tf.convert_to_tensor(x), gradient, table, wiring, norm)
        return missed.numpy(), matters.numpy()

    def _move(self, layer: DifferentiableLut, missed: Any, matters: Any, share: float) -> None:
        """Move the idlest pins of a share of the nodes, to inputs drawn by the square of how much they are missed."""
        wiring, table = layer.connections(), layer.table.numpy()
        idlest = (matters / (matters.max(axis=1, keepdims=True) + 1e-12)).min(axis=1)
        nodes = np.argsort(idlest)[: int(np.ceil(share * len(wiring)))]
        pins = matters[nodes].argmin(axis=1)
        chances = missed[nodes].astype(np.float64) ** 2
        np.put_along_axis(chances, wiring[nodes], 0.0, axis=1)  # a node reads an input once
        for node, pin, chance in zip(nodes, pins, chances, strict=True):
            if chance.sum() > 0:
                wiring[node, pin] = self.rng.choice(len(chance), p=chance / chance.sum())
                entries = table[node].reshape(-1, 2, 2**pin)
                entries[:] = entries.mean(axis=1, keepdims=True)
        layer.set_connections(wiring)
        layer.table.assign(table)
