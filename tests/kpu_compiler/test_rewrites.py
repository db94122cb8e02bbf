"""Every rewrite leaves what the graph computes as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kconvert.errors import GraphError
from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler import graph as g
from kconvert.kpu.compiler import rewrites as r
from kconvert.kpu.compiler.execute import run
from kconvert.kpu.nnil import Op
from kconvert.kpu.nodes import BinaryOp, ReduceOp, ResizeMode
from kconvert.kpu.wire import FloatRange, Padding

RNG = np.random.default_rng(0)
LIMITS = r.Thresholds(output=16)


def randoms(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def conv(x: g.Tensor, outs: int = 4, kernel: int = 3, groups: int = 1, **options: Any) -> g.Tensor:
    weights = randoms(outs, x.shape[1] // groups, kernel, kernel)
    pad = Padding(kernel // 2, kernel // 2)
    return g.Conv2D(x, weights, randoms(outs), groups, **{"pad_h": pad, "pad_w": pad, **options}).output


def pad(x: g.Tensor, h: tuple[int, int], w: tuple[int, int], value: float = 0.0) -> g.Tensor:
    return g.Pad(x, r.pads_of(4, Padding(*h), Padding(*w)), value).output


def channels(count: int) -> g.Tensor:
    return g.constant("c", randoms(1, count, 1, 1))


def flattened_dense(x: g.Tensor) -> g.Tensor:
    flat = g.Reshape(g.Transpose(x, (0, 2, 3, 1)).output, (1, x.count)).output
    return g.MatMul(flat, g.constant("w", randoms(x.count, 5)), randoms(5)).output


def swish(x: g.Tensor) -> g.Tensor:
    y = conv(x)
    return g.Binary(BinaryOp.MUL, y, g.Function(y, fn.sigmoid()).output).output


def deconv(kernel: int, stride: int, size: int, before: int) -> Callable[[g.Tensor], g.Tensor]:
    def make(x: g.Tensor) -> g.Tensor:
        total = (x.shape[2] - 1) * stride + kernel - size
        pads = Padding(before, total - before)
        y = g.ConvTranspose2D(x, randoms(4, x.shape[1], kernel, kernel), (size, size), pads, pads, (stride, stride))
        return g.Function(g.Binary(BinaryOp.ADD, y.output, channels(4)).output, fn.RELU).output

    return make


def strided(kernel: int, before: int, after: int, stride: int, groups: int = 1) -> Callable[[g.Tensor], g.Tensor]:
    p = Padding(before, after)
    outs = 6 if groups > 1 else 4
    return lambda x: conv(x, outs, kernel, groups, pad_h=p, pad_w=p, stride=(stride, stride))


DILATED = {"pad_h": Padding(2, 2), "pad_w": Padding(1, 3), "dilation": (2, 3)}
NO_PAD = {"pad_h": Padding(0, 0), "pad_w": Padding(0, 0)}
MAX_POOL = FloatRange(0.0, 1.0)

# name: rules, what makes the network of an input [1, 6, 12, 12], kinds of operation that are left
CASES: dict[str, tuple[Sequence[g.Rule], Callable[[g.Tensor], g.Tensor], set[str]]] = {
    "fold_constants": (
        [r.fold_constants],
        lambda x: g.Binary(BinaryOp.ADD, x, g.Function(channels(6), fn.tanh()).output).output,
        {"Binary"},
    ),
    "drop_moves_of_nothing": ([r.drop_moves_of_nothing], lambda x: conv(pad(x, (0, 0), (0, 0))), {"Conv2D"}),
    "a crop that adds as much is kept": (
        [r.drop_moves_of_nothing, r.merge_pads],
        lambda x: pad(pad(x, (-1, 0), (0, 0)), (1, 0), (0, 0), 7.0),
        {"Pad"},
    ),
    "merge_reshapes": (
        [r.merge_reshapes],
        lambda x: g.Reshape(g.Reshape(x, (6, 144)).output, (36, 24)).output,
        {"Reshape"},
    ),
    "merge_transposes": (
        [r.merge_transposes, r.drop_moves_of_nothing],
        lambda x: g.Transpose(g.Transpose(x, (0, 2, 3, 1)).output, (0, 3, 1, 2)).output,
        {"Reshape"},
    ),
    "a transpose of ones is a view": (
        [r.merge_transposes],
        lambda x: g.Transpose(g.Reduce(ReduceOp.MEAN, x, (2, 3)).output, (0, 2, 3, 1)).output,
        {"Reduce", "Reshape"},
    ),
    "merge_resizes": (
        [r.merge_resizes],
        lambda x: g.Resize(g.Resize(x, (24, 12), ResizeMode.NEAREST).output, (24, 36), ResizeMode.NEAREST).output,
        {"Resize"},
    ),
    "slice_to_crop": (
        [r.slice_to_crop],
        lambda x: g.Slice(x, (0, 1, 2, 0), (1, 5, 12, 9), (1, 1, 1, 1)).output,
        {"Pad"},
    ),
    "merge_pads": ([r.merge_pads], lambda x: pad(pad(x, (1, 2), (0, 1)), (2, -1), (-1, 0)), {"Pad"}),
    "pad_into_conv": ([r.pad_into_conv], lambda x: conv(pad(x, (1, 2), (0, 1))), {"Conv2D"}),
    "other values are not padding": ([r.pad_into_conv], lambda x: conv(pad(x, (1, 2), (0, 1), 2.0)), {"Pad", "Conv2D"}),
    "clamp_into_producer": (
        [r.clamp_into_producer],
        lambda x: g.Function(g.Function(conv(x), fn.RELU6).output, fn.clamp(1.0, 9.0)).output,
        {"Conv2D"},
    ),
    "a clamp that leaves one value": (
        [r.clamp_into_producer],
        lambda x: g.Function(g.Function(conv(x), fn.RELU_N1_TO_1).output, fn.clamp(2.0, 3.0)).output,
        {"Conv2D"},
    ),
    "a mean is not clamped before": (
        [r.clamp_into_producer, r.clamp_of_pool_into_conv],
        lambda x: g.Function(g.Pool2D(ReduceOp.MEAN, conv(x), (2, 2), (2, 2)).output, fn.RELU).output,
        {"Conv2D", "Pool2D", "Function"},
    ),
    "clamp_of_pool_into_conv": (
        [r.clamp_of_pool_into_conv, r.clamp_into_producer],
        lambda x: g.Pool2D(ReduceOp.MAX, conv(x), (2, 2), (2, 2), act=MAX_POOL).output,
        {"Conv2D", "Pool2D"},
    ),
    "scalar_to_function": (
        [r.scalar_to_function],
        lambda x: g.Binary(BinaryOp.SUB, g.constant("one", randoms(1, 1, 1, 1)), x, FloatRange(-1, 1)).output,
        {"Function"},
    ),
    "merge_functions": (
        [r.merge_functions],
        lambda x: g.Function(g.Function(x, fn.tanh()).output, fn.unary(Op.EXP)).output,
        {"Function"},
    ),
    "two clamps are one": (
        [r.merge_functions, r.clamp_into_producer],
        lambda x: g.Function(g.Function(conv(x), fn.clamp(-9.0, 0.5)).output, fn.clamp(-0.5, 9.0)).output,
        {"Conv2D"},
    ),
    "join_functions": ([r.join_functions], swish, {"Conv2D", "Function"}),
    "channel_scale_into_conv": (
        [r.channel_scale_into_conv],
        lambda x: (
            g.Binary(
                BinaryOp.SUB, g.Binary(BinaryOp.MUL, channels(4), conv(x)).output, channels(4), FloatRange(0, 3)
            ).output
        ),
        {"Conv2D"},
    ),
    "a constant minus a convolution is not folded": (
        [r.channel_scale_into_conv],
        lambda x: g.Binary(BinaryOp.SUB, channels(4), conv(x)).output,
        {"Conv2D", "Binary"},
    ),
    "channel_scale_to_conv": (
        [r.channel_scale_to_conv, r.channel_scale_into_conv],
        lambda x: g.Binary(BinaryOp.ADD, g.Binary(BinaryOp.MUL, x, channels(6)).output, channels(6)).output,
        {"Conv2D"},
    ),
    "transpose_into_matmul": ([r.transpose_into_matmul], flattened_dense, {"Reshape", "MatMul"}),
    "function_above_views": (
        [r.function_above_views],
        lambda x: g.Function(g.Transpose(conv(x), (0, 2, 3, 1)).output, fn.tanh()).output,
        {"Conv2D", "Function", "Transpose"},
    ),
    "binary_above_transposes": (
        [r.binary_above_transposes],
        lambda x: (
            g.Binary(
                BinaryOp.MAX, g.Transpose(x, (0, 1, 3, 2)).output, g.Transpose(conv(x, 6), (0, 1, 3, 2)).output
            ).output
        ),
        {"Conv2D", "Binary", "Transpose"},
    ),
    "whole_reduce_above_transpose": (
        [r.whole_reduce_above_transpose],
        lambda x: g.Reduce(ReduceOp.SUM, g.Transpose(x, (0, 2, 3, 1)).output, (1, 2)).output,
        {"Reduce", "Transpose"},
    ),
    "dilation_to_batches": (
        r.kpu_rules(LIMITS),
        lambda x: conv(g.Resize(x, (16, 18), ResizeMode.NEAREST).output, 4, 3, **DILATED),
        {"Resize", "KpuConv", "Reshape", "Transpose", "Pad", "Slice"},
    ),
    "groups_to_full": ([r.groups_to_full], lambda x: conv(x, 8, 3, 2), {"Conv2D"}),
    "more channels for each": ([r.groups_to_full], lambda x: conv(x, 12, 3, 6), {"Conv2D"}),
    "a 1x1 convolution": (r.kpu_rules(LIMITS), lambda x: conv(x, 4, 1), {"KpuConv", "Slice"}),
    "valid": (r.kpu_rules(LIMITS), lambda x: conv(x, **NO_PAD), {"KpuConv", "Slice"}),
    "a wide border": (
        r.kpu_rules(LIMITS),
        lambda x: conv(x, pad_h=Padding(3, 2), pad_w=Padding(0, 4)),
        {"Pad", "KpuConv", "Slice"},
    ),
    "stride 2, same": ((*r.SIMPLIFY, *r.kpu_rules(LIMITS)), strided(3, 0, 1, 2), {"Pad", "KpuConv"}),
    "stride 2, equal padding": ((*r.SIMPLIFY, *r.kpu_rules(LIMITS)), strided(3, 1, 1, 2), {"KpuConv"}),
    "stride 3": ((*r.SIMPLIFY, *r.kpu_rules(LIMITS)), strided(3, 1, 1, 3), {"KpuConv", "Slice"}),
    "stride 2, depthwise": ((*r.SIMPLIFY, *r.kpu_rules(LIMITS)), strided(3, 1, 1, 2, 6), {"KpuConv", "Slice"}),
    "stride_behind_pointwise": (
        (*r.SIMPLIFY, *r.kpu_rules(LIMITS)),
        lambda x: conv(g.Function(strided(3, 1, 1, 2, 6)(x), fn.tanh()).output, 8, 1),
        {"KpuConv", "Function"},
    ),
    "function_above_crops": (
        (*r.SIMPLIFY, *r.kpu_rules(LIMITS)),
        lambda x: g.Function(conv(x, **NO_PAD), fn.tanh()).output,
        {"KpuConv", "Function", "Pad"},
    ),
    "dense": (
        (*r.SIMPLIFY, *r.kpu_rules(LIMITS)),
        lambda x: flattened_dense(g.Pool2D(ReduceOp.MAX, x, (4, 4), (4, 4)).output),
        {"Pool2D", "Reshape", "Pad", "KpuConv"},
    ),
}
for _kernel, _stride, _size, _before in (
    (3, 2, 24, 0),
    (3, 2, 25, 0),
    (4, 2, 24, 1),
    (2, 2, 24, 0),
    (5, 2, 24, 1),
    (6, 2, 24, 2),
    (3, 1, 12, 1),
):
    CASES[f"transposed {_kernel}x{_kernel}, stride {_stride}, to {_size}"] = (
        (*r.SIMPLIFY, *r.kpu_rules(LIMITS)),
        deconv(_kernel, _stride, _size, _before),
        {"KpuConv", "Transpose", "Pad", "Reshape"} if _stride == 2 else {"KpuConv"},
    )


@pytest.mark.parametrize("name", CASES)
def test_the_result_stays_the_same(name: str) -> None:
    rules, make, kinds = CASES[name]
    x = g.Tensor("x", (1, 6, 12, 12))
    graph = g.Graph([x], [make(x)])
    samples = randoms(3, 1, 6, 12, 12)
    (before,) = run(graph, [samples])
    applied = g.rewrite(graph, rules)
    (after,) = run(graph, [samples])
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=2e-5)
    assert {type(op).__name__ for op in graph.order()} <= kinds
    assert bool(applied) != name.startswith(("a mean is", "other values", "a constant minus", "a crop that"))


def test_a_value_that_is_needed_twice_is_not_rewritten_away() -> None:
    x = g.Tensor("x", (1, 6, 12, 12))
    y = conv(x)
    graph = g.Graph([x], [y, g.Function(y, fn.RELU).output])
    samples = randoms(2, 1, 6, 12, 12)
    before = run(graph, [samples])
    g.rewrite(graph, (*r.SIMPLIFY, *r.kpu_rules(LIMITS)))
    for a, b in zip(before, run(graph, [samples]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_rules_that_undo_each_other_are_found() -> None:
    @g.rule(g.Function)
    def back_and_forth(graph: g.Graph, op: g.Function) -> g.Tensor:
        return g.Function(op.x, op.expr).output

    x = g.Tensor("x", (4,))
    with pytest.raises(GraphError, match="back_and_forth"):
        g.rewrite(g.Graph([x], [g.Function(x, fn.RELU).output]), [back_and_forth])


def test_the_graph_prints_as_text() -> None:
    x = g.Tensor("x", (1, 6, 12, 12))
    text = str(g.Graph([x], [g.Function(conv(x), fn.RELU).named("y")]))
    assert text.splitlines()[0] == "input %x: float32[1x6x12x12]"
    assert "Conv2D(%x; weights=float32[4x6x3x3]" in text
    assert text.splitlines()[-1] == "output %y: float32[1x4x12x12]"
