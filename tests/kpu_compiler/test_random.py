"""Random networks: what the kmodel answers against the float graph, in every way to compile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kconvert import kpu
from kconvert.errors import CapacityError
from kconvert.kpu.compiler import compile as steps
from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler import graph as g
from kconvert.kpu.compiler.execute import run
from kconvert.kpu.nnil import Op
from kconvert.kpu.nodes import BinaryOp, ReduceOp, ResizeMode
from kconvert.kpu.wire import Padding

LARGEST = 40_000  # elements of a map
FUNCTIONS = (
    fn.RELU,
    fn.RELU6,
    fn.leaky_relu(0.1),
    fn.sigmoid(),
    fn.tanh(),
    fn.elu(),
    fn.hard_swish(),
    fn.unary(Op.ABS),
)
Made = g.Tensor | None


class Maker:
    """Makes a network, always the same one for a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.maps: list[g.Tensor] = []

    def normal(self, *shape: int) -> np.ndarray:
        return self.numbers.normal(size=shape).astype(np.float32)

    def weights(self, *shape: int) -> np.ndarray:
        return self.normal(*shape) / np.float32(np.sqrt(np.prod(shape[1:])))

    def graph(self) -> g.Graph:
        choose = self.random.choice
        first = g.Tensor(
            "x", (1, choose([1, 2, 3, 4, 8]), choose([4, 5, 8, 12, 16, 17]), choose([4, 6, 8, 11, 16, 33]))
        )
        self.maps = [first]
        kinds: list[Callable[[g.Tensor], Made]] = [self.conv] * 5
        kinds += [self.pool, self.resize, self.transposed, self.both, self.joined, self.scaled, self.moved, self.curve]
        while len(self.maps) < 2 + self.random.randrange(6):
            made = choose(kinds)(choose(self.maps[-3:]))
            if made is not None and made.count <= LARGEST:
                self.maps.append(made)
        outputs = [g.Function(self.maps[-1], fn.X * 0.5).output]
        if self.random.random() < 0.3 and self.maps[-2] is not first:
            outputs.append(self.maps[-2])
        if self.random.random() < 0.3 and outputs[0].count < 3000:
            flat = g.Reshape(g.Transpose(outputs[0], (0, 2, 3, 1)).output, (1, outputs[0].count)).output
            dense = g.MatMul(flat, g.constant("w", self.weights(16, flat.count).T), self.normal(16))
            outputs[0] = dense.output
        return g.Graph([first], outputs)

    def conv(self, x: g.Tensor) -> Made:
        choose, (_, channels, h, w) = self.random.choice, x.shape
        kernel, outs, groups = choose([1, 3, 3, 3, 5]), choose([1, 4, 6, 8]), 1
        if self.random.random() < 0.25:
            groups, outs = channels, channels * choose([1, 1, 2])
        dilation = choose([1, 1, 1, 2]) if kernel == 3 else 1
        stride = choose([(1, 1), (1, 1), (2, 2), (3, 3), (1, 2)]) if dilation == 1 else (1, 1)
        half = kernel // 2
        pads = [Padding(choose([0, half, half * dilation, 2]), choose([0, half, half * dilation])) for _ in range(2)]
        if min(h + sum(pads[0]), w + sum(pads[1])) <= dilation * (kernel - 1):
            return None
        weights = self.weights(outs, channels // groups, kernel, kernel)
        bias = self.normal(outs) * np.float32(0.3)
        y = g.Conv2D(x, weights, bias, groups, pads[0], pads[1], stride, (dilation, dilation)).output
        return g.Function(y, choose(FUNCTIONS)).output if self.random.random() < 0.6 else y

    def pool(self, x: g.Tensor) -> Made:
        kernel = self.random.choice([2, 2, 3, 4])
        if min(x.shape[2:]) < kernel:
            return None
        stride, pad = self.random.choice([1, 2, kernel]), Padding(0, self.random.choice([0, 0, 1]))
        kind = self.random.choice([ReduceOp.MAX, ReduceOp.MEAN])
        y = g.Pool2D(kind, x, (kernel, kernel), (stride, stride), pad, pad).output
        return g.Function(y, fn.RELU).output if self.random.random() < 0.3 else y

    def resize(self, x: g.Tensor) -> Made:
        mode = self.random.choice([ResizeMode.NEAREST, ResizeMode.NEAREST, ResizeMode.BILINEAR])
        return g.Resize(x, (x.shape[2] * 2, x.shape[3] * 2), mode).output

    def transposed(self, x: g.Tensor) -> Made:
        kernel, stride = self.random.choice([2, 3, 4, 5, 7]), self.random.choice([1, 2, 2, 3])
        if kernel < stride:
            return None
        pad = Padding((kernel - stride) // 2, kernel - stride - (kernel - stride) // 2)
        size = (x.shape[2] * stride, x.shape[3] * stride)
        weights = self.weights(self.random.choice([2, 4]), x.shape[1], kernel, kernel)
        y = g.ConvTranspose2D(x, weights, size, pad, pad, (stride, stride)).output
        if self.random.random() < 0.5:
            y = g.Binary(BinaryOp.ADD, y, g.constant("b", self.normal(1, y.shape[1], 1, 1))).output
        return g.Function(y, fn.RELU).output if self.random.random() < 0.5 else y

    def both(self, x: g.Tensor) -> Made:
        other = self.random.choice([t for t in self.maps if t.shape == x.shape])
        return g.Binary(self.random.choice([BinaryOp.ADD, BinaryOp.SUB, BinaryOp.MUL, BinaryOp.MAX]), x, other).output

    def joined(self, x: g.Tensor) -> Made:
        return g.Concat([x, self.random.choice([t for t in self.maps if t.shape[2:] == x.shape[2:]])], 1).output

    def scaled(self, x: g.Tensor) -> Made:
        number = g.constant("s", self.normal(1, x.shape[1], 1, 1))
        return g.Binary(self.random.choice([BinaryOp.MUL, BinaryOp.ADD]), x, number).output

    def moved(self, x: g.Tensor) -> Made:
        some = self.random.randrange
        if some(2) or min(x.shape[2:]) < 4:
            pads = (Padding(0, 0), Padding(0, 0), Padding(some(3), some(3)), Padding(some(3), some(3)))
            return g.Pad(x, pads, self.random.choice([0.0, 0.0, 0.5])).output
        step = 1 + some(2)
        return g.Slice(x, (0, 0, some(2), some(2)), x.shape, (1, 1, step, step)).output

    def curve(self, x: g.Tensor) -> Made:
        return g.Function(x, self.random.choice([*FUNCTIONS, fn.X * 2.0 - 1.0])).output


@pytest.mark.parametrize(
    "options",
    [{}, {"calibrate_method": "l2"}, {"inference_type": "float"}, {"target": "cpu"}, {"input_type": "float"}],
    ids=["bytes", "l2", "float", "cpu", "float input"],
)
def test_random_networks(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    in_bytes = not {"inference_type", "input_type"} & options.keys()
    exact = "inference_type" in options
    compared = 0
    for seed in range(60):
        graph = Maker(seed).graph()
        pixels = np.random.default_rng(seed).integers(0, 256, (6, *graph.inputs[0].shape[1:]), np.uint8)
        reals = pixels / np.float32(255)
        wanted = run(graph, [reals[:, None]])
        monkeypatch.setattr(steps, "read_tflite", lambda _, seed=seed: Maker(seed).graph())
        try:
            model = kpu.compile(b"", pixels, max_allocator_solve_secs=1, **options)
        except CapacityError:
            continue
        for found, reference in zip(model.infer(pixels if in_bytes else reals), wanted, strict=True):
            difference = np.abs(found.ravel() - reference.ravel()) / max(float(np.abs(reference).max()), 1e-3)
            assert difference.mean() < (1e-5 if exact else 0.03), seed
            compared += 1
    assert compared >= 50
