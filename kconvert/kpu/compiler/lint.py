"""What the KPU takes, said before effort goes into training: one table of rules, for the report and for the manual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from kconvert.kpu import k210
from kconvert.kpu.compiler.compile import tflite_of
from kconvert.kpu.compiler.graph import (
    Binary,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Function,
    Graph,
    MatMul,
    Op,
    Pad,
    Pool2D,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Transpose,
    rewrite,
)
from kconvert.kpu.compiler.importer import read_tflite
from kconvert.kpu.compiler.lowering import pool_problem
from kconvert.kpu.compiler.rewrites import (
    SIMPLIFY,
    ZERO,
    Thresholds,
    conv_problem,
    extra_padding,
    is_answer,
    map_problem,
    matmul_problem,
    phases,
    weight_loads,
)
from kconvert.kpu.wire import Padding

KPU, PARTLY, CPU, FREE = "KPU", "partly", "CPU", "free"


@dataclass(frozen=True, slots=True)
class LintRule:
    """One limit."""

    name: str
    runs: str  # what runs on the KPU
    otherwise: str


RULES: dict[str, LintRule] = {
    rule.name: rule
    for rule in (
        LintRule("kernel", "1x1 or 3x3", "CPU, in integers"),
        LintRule(
            "stride",
            "1; 2 in both directions if not depthwise. A depthwise stride 2 that begins at the first pixel goes behind "
            "a 1x1 convolution that follows",
            "partly: the KPU computes every pixel, the CPU picks some",
        ),
        LintRule(
            "padding",
            "equal on all sides: 1 for 3x3, 0 for 1x1. TensorFlow's `same` with stride 2 on an even size is not: put "
            "ZeroPadding2D(1) before a `valid` convolution instead",
            "partly: the CPU adds a border before, or cuts one off behind",
        ),
        LintRule("dilation", "1", "partly: every d-th row and column becomes a map of its own, reordered by the CPU"),
        LintRule(
            "map",
            f"{k210.MIN_HEIGHT}x{k210.MIN_WIDTH} to {k210.MAX_HEIGHT} high and {k210.MAX_WIDTH} wide. Older guides say "
            f"320x240 (width x height); the limit in the original's code is the one here",
            "CPU",
        ),
        LintRule("channels", f"1 to {k210.MAX_CHANNELS}", "CPU"),
        LintRule("groups", "1, or one for each channel (depthwise, multiplier 1)", "KPU, as a full one with zeros"),
        LintRule("weights", "a range of weights up to the threshold (32)", "CPU, in float"),
        LintRule(
            "loads",
            f"{k210.WEIGHT_BUFFER} bytes of weights at a time, {k210.MAX_LOADS} times",
            "KPU, as several layers that share one result",
        ),
        LintRule(
            "pooling",
            "max or average, 2x2 with strides 2 or 1, 4x4 with strides 4, without padding (stride 1: `same`), right "
            "behind a convolution that is not depthwise",
            "CPU, in float",
        ),
        LintRule(
            "activation",
            "any function of one number right behind a convolution, as 16 line segments. ReLU, ReLU6 and other clamps "
            "cost nothing anywhere",
            "CPU, as a table of 256 bytes",
        ),
        LintRule(
            "dense",
            f"{Thresholds().output} weights or more, up to {k210.MAX_CHANNELS} features in and out, one row: a 1x1 "
            f"convolution of one pixel",
            "CPU; in integers if the result is large, else in float",
        ),
        LintRule(
            "transposed",
            "kernels and strides for which each pixel needs only its neighbours: 2x2 to 6x6 with stride 2, 3x3 with 1. "
            "Not where the result, without activation, is what the model answers: that stays in float",
            "CPU, in float",
        ),
        LintRule("resize", "-", "CPU, on bytes; nearest is a copy, half-pixel bilinear two matrix products"),
        LintRule("merge", "-", "CPU, in integers; a concatenation copies bytes"),
        LintRule("reduction", "-", "CPU, in float: means, sums, softmax"),
        LintRule("move", "-", "CPU, on bytes; reshapes are free"),
    )
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a layer runs."""

    layer: str
    operation: str
    where: str  # "KPU", "partly", "CPU" or "free"
    rule: str = ""  # a key of RULES
    reason: str = ""

    def row(self) -> dict[str, str]:
        """Return it as a row of a table."""
        return {
            "layer": self.layer,
            "operation": self.operation,
            "runs on": self.where,
            "rule": self.rule,
            "why": self.reason,
        }


class Report(Sequence[Finding]):
    """Findings in the order of the network; prints as a table."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = tuple(findings)

    def __len__(self) -> int:
        return len(self._findings)

    def __getitem__(self, index: Any) -> Any:
        return self._findings[index]

    def table(self) -> list[dict[str, str]]:
        """Return a row for each layer."""
        return [f.row() for f in self._findings]

    @property
    def accelerated(self) -> bool:
        """Whether everything that computes runs on the KPU."""
        return all(f.where in (KPU, FREE) for f in self._findings)

    def __str__(self) -> str:
        rows = [list(Finding("layer", "operation", "runs on", "rule", "why").row().values())]
        rows += [list(r.values()) for r in self.table()]
        widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def check_layers(
    model: Any,
    *,
    weights_quantize_threshold: float = 32.0,
    output_quantize_threshold: int = 1024,
) -> Report:
    """Tell for every layer whether the KPU runs it, which rule it breaks if not, and what is inserted.

    Weights need not be trained: only their range matters.

    Args:
        model: a Keras model or its file, the bytes of a .tflite file, or its path.
        weights_quantize_threshold: as for compiling.
        output_quantize_threshold: as for compiling.

    Raises:
        TFLiteError: the model holds what cannot be compiled at all.
        MissingPackageError: a package is not installed.
    """
    graph = read_tflite(tflite_of(model))
    rewrite(graph, SIMPLIFY)
    limits = Thresholds(weights_quantize_threshold, output_quantize_threshold)
    return Report([Finding(op.output.name, type(op).__name__, *judge(op, graph, limits)) for op in graph.order()])


Verdict = tuple[str, str, str]


@singledispatch
def judge(op: Op, graph: Graph, limits: Thresholds) -> Verdict:
    """Return where an operation runs, the rule that says so, and the reason."""
    return CPU, "move", RULES["move"].otherwise


_WORDS = (
    ("kernel", "kernel"),
    ("groups", "groups"),
    ("dilation", "dilation"),
    ("channels", "channels"),
    ("weights", "weights"),
    ("map", "map"),
)


def _rule_of(problem: str) -> str:
    return next((rule for word, rule in _WORDS if word in problem), "map")


@judge.register
def _(op: Conv2D, graph: Graph, limits: Thresholds) -> Verdict:
    if op.dilation != (1, 1):
        simple = op.stride == (1, 1) and op.kernel == (3, 3)
        return (PARTLY if simple else CPU), "dilation", f"a dilation of {op.dilation}"
    problem = conv_problem(op, limits)
    if problem is not None:
        zeros = _rule_of(problem) == "groups" and op.kernel in ((1, 1), (3, 3))
        fits = map_problem(op.x.shape, len(op.weights)) is None
        return (KPU if zeros and fits else CPU), _rule_of(problem), problem
    inserted = list(_inserted(op))
    if inserted:
        return PARTLY, inserted[0][0], "; ".join(text for _, text in inserted)
    if op.groups == 1 and weight_loads(op.weights) > k210.MAX_LOADS:
        return KPU, "loads", f"{weight_loads(op.weights)} loads of weights: several layers"
    return KPU, "", ""


def _inserted(op: Conv2D) -> Iterator[tuple[str, str]]:
    """Yield the rule and the text for everything that is put around a convolution on the KPU."""
    border = op.kernel[0] // 2
    if extra_padding(op) != (ZERO, ZERO):
        yield "padding", f"a border is added before: {tuple(op.pad_h)} and {tuple(op.pad_w)}, the KPU adds {border}"
    if op.stride == (1, 1):
        if (op.pad_h, op.pad_w) != (Padding(border, border),) * 2 and extra_padding(op) == (ZERO, ZERO):
            yield "padding", "a border is cut off behind"
        return
    if op.stride != (2, 2) or op.groups > 1:
        yield "stride", f"a stride of {op.stride}: every pixel is computed, then some are picked"
        return
    begins = [max(0, border - p.before) for p in (op.pad_h, op.pad_w)]
    if begins[0] % 2 or op.x.shape[2] % 2 or op.x.shape[3] % 2:
        yield "padding", "a row is added before and cut off behind, to reach the rows that the KPU picks"


@judge.register
def _(op: ConvTranspose2D, graph: Graph, limits: Thresholds) -> Verdict:
    made = phases(op)
    if made is None or op.x.shape[0] != 1:
        return CPU, "transposed", f"a kernel of {op.weights.shape[2:]} with strides {op.stride}"
    if is_answer(graph, op):
        return CPU, "transposed", "it is what the model answers, without an activation"
    problem = map_problem(op.x.shape, len(made[0]))
    if problem is not None:
        return CPU, _rule_of(problem), problem
    if op.stride == (1, 1):
        return KPU, "", ""
    return PARTLY, "transposed", "the KPU computes blocks of pixels as channels, the CPU puts them in place"


@judge.register
def _(op: MatMul, graph: Graph, limits: Thresholds) -> Verdict:
    problem = matmul_problem(op, limits)
    return (PARTLY, "dense", "a 4x4 map is made of the vector") if problem is None else (CPU, "dense", problem)


@judge.register
def _(op: Pool2D, graph: Graph, limits: Thresholds) -> Verdict:
    conv = op.x.producer
    problem = pool_problem(op)
    if problem is None and (not isinstance(conv, Conv2D) or conv_problem(conv, limits) or conv.groups > 1):
        problem = "it does not come right behind a convolution on the KPU that is not depthwise"
    if problem is None and isinstance(conv, Conv2D) and (conv.stride != (1, 1) or list(_inserted(conv))):
        problem = "strides or padding of the convolution before it are in between"
    return (KPU, "", "") if problem is None else (CPU, "pooling", problem)


@judge.register
def _(op: Function, graph: Graph, limits: Thresholds) -> Verdict:
    conv = op.x.producer
    if isinstance(conv, Conv2D) and conv_problem(conv, limits) is None and graph.only_user(op.x) is op:
        return KPU, "", ""
    return CPU, "activation", "it does not come right behind a convolution on the KPU, as its only reader"


@judge.register
def _(op: Resize, graph: Graph, limits: Thresholds) -> Verdict:
    return CPU, "resize", RULES["resize"].otherwise


@judge.register(Binary)
@judge.register(Concat)
def _(op: Op, graph: Graph, limits: Thresholds) -> Verdict:
    return CPU, "merge", RULES["merge"].otherwise


@judge.register
def _(op: Reduce, graph: Graph, limits: Thresholds) -> Verdict:
    return CPU, "reduction", RULES["reduction"].otherwise


@judge.register
def _(op: Reshape, graph: Graph, limits: Thresholds) -> Verdict:
    return FREE, "", ""


@judge.register(Pad)
@judge.register(Slice)
@judge.register(Transpose)
def _(op: Op, graph: Graph, limits: Thresholds) -> Verdict:
    return CPU, "move", RULES["move"].otherwise


def markdown() -> str:
    """Return the rules as a table for the manual."""
    lines = ["| rule | on the KPU | otherwise |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {r.name} | {r.runs} | {r.otherwise} |" for r in RULES.values())])
