"""Which multiplier does for which layer: what error it would make there, and how much of one the layer bears.

The error a multiplier adds to a sum of products is predicted from the numbers that meet in the layer. Receptive fields
differ a lot: one sees the background of an image, another a bright edge. One histogram for all of them says far too
little about the spread of their errors. So every field drawn is a population of its own, and the law of total variance
joins them; or, as inputs and the weights trained for them belong together, the errors of the fields drawn are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.profiling.plots import new_figure, plain_legend
from kconvert.tables import html_table, text_table

from .emulation.table import TableProduct
from .errors import ApproxError
from .multipliers import EXACT_PRODUCTS, ApproximateMultiplier
from .plots import plain, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .net import ApproxNet, Operands

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer[Any]]

FIELDS = 4096
"""Receptive fields that are drawn from a layer's inputs (published: 512)."""

ErrorModel = Callable[[npt.ArrayLike], float]
"""Predicts the standard deviation of an output's error from an error map."""


# ***** the error of a multiplier in a layer *****


def error_model(
    rows: Codes, weights: Codes, *, model: str = "populations", fields: int = FIELDS, seed: int = 0
) -> ErrorModel:
    """Return what predicts the standard deviation of the error that a multiplier adds to a layer's integer outputs.

    It takes an error map, ``x * y - approx(x, y)`` at [x + 128, y + 128].

    Args:
        rows: Codes of the inputs that are summed for one output, [n, fan_in]; or [groups, n, fan_in] where every group
            of outputs reads inputs of its own (a depthwise convolution: a channel is a group).
        weights: Codes, [fan_in, outputs] or [groups, fan_in, outputs of a group].
        model: ``"populations"``: every field has its own distribution of inputs, all share one of the weights, and
            products are independent within a field (the multi-population model of Trommer et al., ICCAD 2022).
            ``"global"``: one distribution for all fields. ``"measured"``: no distribution, the error of every output of
            the fields drawn.
        fields: How many rows are drawn; all are taken where there are no more.
        seed: Of that draw.

    Raises:
        ApproxError: an unknown model, or arrays whose shapes do not fit.
    """
    if model not in _MODELS:
        raise ApproxError(f"there is no error model {model!r}; choose from {', '.join(_MODELS)}")
    predict = _MODELS[model](*_drawn(np.asarray(rows), np.asarray(weights), fields, seed))

    def deviation(error_map: npt.ArrayLike) -> float:
        table = np.asarray(error_map, dtype=np.float64)
        if table.shape != (256, 256):
            raise ApproxError(f"an error map has the shape (256, 256), not {table.shape}")
        return predict(table)

    return deviation


def error_deviation(error_map: npt.ArrayLike, rows: Codes, weights: Codes, **options: Any) -> float:
    """Return what an :func:`error_model` with these options predicts for one error map."""
    return error_model(rows, weights, **options)(error_map)


def _drawn(rows: Codes, weights: Codes, fields: int, seed: int) -> tuple[Codes, Codes]:
    """Return `fields` rows in all, [groups, n, fan_in], and weights [groups, fan_in, outputs]."""
    rows, weights = (a[np.newaxis] if a.ndim == 2 else a for a in (rows, weights))
    if rows.ndim != 3 or weights.ndim != 3 or rows.shape[0] != weights.shape[0] or rows.shape[2] != weights.shape[1]:
        raise ApproxError(
            f"inputs {rows.shape} do not fit weights {weights.shape}: they are [groups, n, fan_in] and "
            f"[groups, fan_in, outputs]"
        )
    if not rows.size or not weights.size:
        raise ApproxError("there are no inputs or no weights to predict an error from")
    if any(codes.min() < -128 or codes.max() > 127 for codes in (rows, weights)):
        raise ApproxError("inputs and weights are codes from -128 to 127")
    count = max(1, round(fields / len(rows)))
    if count < rows.shape[1]:
        rows = rows[:, np.random.default_rng(seed).choice(rows.shape[1], count, replace=False)]
    return rows.astype(np.int8), weights.astype(np.int8)


def _shares(codes: Codes) -> Floats:
    """Return the distribution over the 256 codes of every row of [n, k]."""
    n, k = codes.shape
    counts = np.bincount((codes + np.int64(128) + 256 * np.arange(n)[:, np.newaxis]).ravel(), minlength=256 * n)
    shares: Floats = counts.reshape(n, 256) / k
    return shares


def _populations(rows: Codes, weights: Codes) -> Callable[[Floats], float]:
    fan_in = rows.shape[2]
    of_weights = _shares(weights.reshape(1, -1))[0]
    of_inputs = _shares(rows.reshape(-1, fan_in))

    def deviation(table: Floats) -> float:
        mean = of_inputs @ (table @ of_weights)
        variance = np.maximum(of_inputs @ (table**2 @ of_weights) - mean**2, 0)
        # a sum of fan_in errors: the spread of the fields' means, and the mean spread inside a field
        return float(np.sqrt(fan_in**2 * mean.var() + fan_in * variance.mean()))

    return deviation


def _global(rows: Codes, weights: Codes) -> Callable[[Floats], float]:
    of_inputs, of_weights = _shares(rows.reshape(1, -1))[0], _shares(weights.reshape(1, -1))[0]

    def deviation(table: Floats) -> float:
        mean = of_inputs @ table @ of_weights
        variance = max(of_inputs @ table**2 @ of_weights - mean**2, 0.0)
        return float(np.sqrt(rows.shape[2] * variance))

    return deviation


def _measured(rows: Codes, weights: Codes) -> Callable[[Floats], float]:
    exact = rows.astype(np.float64) @ weights.astype(np.float64)

    def deviation(table: Floats) -> float:
        product = TableProduct(np.rint(EXACT_PRODUCTS - table).astype(np.int64))
        sums = np.stack([product.matrix(x, w) for x, w in zip(rows, weights, strict=True)])
        return float((exact - sums).std())

    return deviation


_MODELS: Mapping[str, Callable[[Codes, Codes], Callable[[Floats], float]]] = {
    "populations": _populations,
    "global": _global,
    "measured": _measured,
}


# ***** the choice *****


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """The multiplier chosen for a layer.

    Attributes:
        name: Name of the layer.
        multiplier: Name of the multiplier.
        metric: Its performance metric, such as a power.
        opcount: Multiplications of the layer for one sample.
        relative_opcount: Its share of those of the network.
        relative_energy_consumption: The metric over the largest in the library.
        metric_max: That largest metric.
        tolerated: Standard deviation that the error of an integer output may have: the learned one.
        predicted: That of the multiplier chosen.
    """

    name: str
    multiplier: str
    metric: float
    opcount: int
    relative_opcount: float
    relative_energy_consumption: float
    metric_max: float
    tolerated: float
    predicted: float

    @property
    def energy_share(self) -> float:
        """Energy of the layer over that of the network if all its multipliers were those of the largest metric."""
        return self.relative_opcount * self.relative_energy_consumption


@dataclass(frozen=True, eq=False)
class Selection:
    """The choice for all layers of a network.

    Attributes:
        layers: In the order of the network.
        multipliers: The multipliers themselves, by layer.
        metric_max: The largest metric of the library.
    """

    layers: tuple[LayerSelection, ...]
    multipliers: Mapping[str, ApproximateMultiplier]
    metric_max: float

    @property
    def relative_energy_consumption(self) -> float:
        """Energy of all multiplications over that with the multiplier of the largest metric everywhere."""
        return sum(layer.energy_share for layer in self.layers)

    @property
    def total(self) -> float:
        """The same: the sum of the shares of all layers."""
        return self.relative_energy_consumption

    @property
    def opcount(self) -> int:
        """Multiplications of one sample."""
        return sum(layer.opcount for layer in self.layers)

    def __getitem__(self, layer: str) -> LayerSelection:
        """Return the choice for a layer; raises KeyError where there is none."""
        return {found.name: found for found in self.layers}[layer]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data, such as JSON holds."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "metric_max": self.metric_max,
            "opcount": self.opcount,
            "relative_energy_consumption": self.relative_energy_consumption,
        }

    def _table(self) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        titles = ("layer", "multiplier", "metric", "operations", "share", "energy", "tolerated", "predicted")
        rows: list[tuple[object, ...]] = [
            (
                *(found.name, found.multiplier, found.metric, found.opcount, found.relative_opcount),
                *(found.relative_energy_consumption, found.tolerated, found.predicted),
            )
            for found in self.layers
        ]
        rows.append(("network", "", None, self.opcount, 1.0, self.relative_energy_consumption, None, None))
        return titles, rows

    def __str__(self) -> str:
        """The table of all figures."""
        return text_table(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table(), "Multipliers by layer")

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the share of operations and of energy of every layer; into a file, where one is named.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        figure = new_figure(7, 1.4 + 0.55 * len(self.layers))
        axes = figure.add_subplot()
        at = np.arange(len(self.layers))
        operations = [100 * found.relative_opcount for found in self.layers]
        energy = [100 * found.energy_share for found in self.layers]
        bars = [
            axes.barh(at - 0.2, operations, 0.38, color="0.75", label="operations"),
            axes.barh(at + 0.2, energy, 0.38, color="tab:blue", label="energy of the multipliers chosen"),
        ]
        for row, found in enumerate(self.layers):
            axes.annotate(
                plain(f"{found.multiplier}: {found.relative_energy_consumption:.0%}"),
                (energy[row], row + 0.2),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        axes.set_yticks(at, [plain(found.name) for found in self.layers])
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_xlabel("% of a network of the most expensive multipliers")
        axes.set_title(f"energy: {self.relative_energy_consumption:.1%}", loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        plain_legend(axes, bars, loc="lower right")
        return saved(figure, path)


def select_multipliers(
    net: ApproxNet,
    data: Any,
    library: Iterable[ApproximateMultiplier],
    *,
    batches: int = 1,
    model: str = "measured",
    fields: int = FIELDS,
    seed: int = 0,
) -> Selection:
    """Choose for every layer the cheapest multiplier whose error stays within what the layer learned to bear.

    Args:
        net: A network after ``train_gradient``: a layer bears ``|sigma|`` times the standard deviation of its integer
            outputs.
        data: What the inputs of the layers are taken from: as for trainings, or an array of inputs alone.
        library: Multipliers with metrics of one kind; one of them exact.
        batches: How many batches of the data are used.
        model: How errors are predicted; see :func:`error_model`, as for `fields` and `seed`. The published way is
            ``"populations"``, with 512 fields; it knows nothing of which inputs meet which weights.

    Raises:
        ApproxError: no exact multiplier in the library, two of one name, or no learned tolerance.
    """
    members = _checked(library)
    metric_max = max(member.performance_metric for member in members)
    opcount, sigma = net.opcount, net.sigma
    if not any(sigma.values()):
        raise ApproxError("no layer has a learned tolerance: call train_gradient before")
    total = sum(opcount.values())
    chosen, multipliers = [], {}
    for operands in net.layer_operands(data, batches):
        name = operands.name
        tolerated = abs(sigma[name]) * float(np.std(operands.outputs))
        predict = error_model(*_grouped(operands), model=model, fields=fields, seed=seed)
        # the cheapest first: most of the library need not be looked at
        for member in sorted(members, key=lambda m: (m.performance_metric, not m.exact)):
            predicted = 0.0 if member.exact else predict(member.error_map)
            if predicted <= tolerated:
                break
        multipliers[name] = member
        chosen.append(
            LayerSelection(
                name=name,
                multiplier=member.name,
                metric=member.performance_metric,
                opcount=opcount[name],
                relative_opcount=opcount[name] / total,
                relative_energy_consumption=member.performance_metric / metric_max,
                metric_max=metric_max,
                tolerated=tolerated,
                predicted=predicted,
            )
        )
    return Selection(tuple(chosen), multipliers, metric_max)


def _grouped(operands: Operands) -> tuple[Codes, Codes]:
    """Return rows [groups, n, fan_in] and weights [groups, fan_in, outputs]; a channel of a depthwise layer is one."""
    (count, fan_in), places = operands.inputs.shape, len(operands.outputs)
    groups = count // places
    rows = operands.inputs.reshape(places, groups, fan_in).transpose(1, 0, 2)
    return rows, operands.weights.reshape(fan_in, groups, -1).transpose(1, 0, 2)


def _checked(library: Iterable[ApproximateMultiplier]) -> list[ApproximateMultiplier]:
    members = list(library)
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ApproxError(f"two multipliers of the library are called {twice[0]!r}")
    if not any(member.exact for member in members):
        raise ApproxError(
            f"none of the {len(members)} multipliers is exact, and a layer may bear no other: add one whose error "
            f"map is zero"
        )
    if max(member.performance_metric for member in members) <= 0:
        raise ApproxError("no multiplier of the library has a performance metric above 0: energies cannot be compared")
    return members


def deploy_multipliers(net: ApproxNet, selection: Selection) -> None:
    """Let every layer of `net` multiply as a selection says.

    Raises:
        ApproxError: the selection is not one for the layers of this network.
    """
    own, given = list(net.opcount), [layer.name for layer in selection.layers]
    if own != given:
        raise ApproxError(f"the selection is for the layers {given}, and the network has {own}")
    net.assign(selection.multipliers)


def uniform(
    net: ApproxNet, multiplier: ApproximateMultiplier | str, library: Iterable[ApproximateMultiplier] | None = None
) -> ApproximateMultiplier:
    """Let all layers of `net` use one multiplier, given itself or by its name in a library (our own by default).

    Raises:
        ApproxError: no multiplier of that name.
    """
    if isinstance(multiplier, str):
        multiplier = by_name(multiplier, library)
    net.assign(multiplier)
    return multiplier


def by_name(name: str, library: Iterable[ApproximateMultiplier] | None = None) -> ApproximateMultiplier:
    """Return the multiplier called `name`.

    Raises:
        ApproxError: there is none; the message names one that is spelled alike.
    """
    from kconvert.errors import did_you_mean

    from .families import library as own

    members = {member.name: member for member in (own() if library is None else library)}
    if name not in members:
        raise ApproxError(f"there is no multiplier {name!r}{did_you_mean(name, members)}")
    return members[name]
