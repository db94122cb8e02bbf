"""How the simulation runs a firmware with layers of single bits: those 512 samples at a time, the others by packs.

Steps are gathered into as few parts as their order allows. A part of packs is one loop, whose tensors are small and
stay in the processor's first cache; what a later part needs of it is kept, as planes or as all its packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kconvert.firmware import Firmware, Port, Step


@dataclass(slots=True)
class Tensor:
    """A tensor in the simulation."""

    variable: str
    type: str
    size: int
    planes: bool = False
    """Whether it is held as planes, perhaps beside packs."""
    whole: bool = False
    """Whether a step on planes makes it, for all samples of a plane, be there as many or fewer."""
    kept: bool = False
    """Whether its packs live on after the loop that makes them."""


@dataclass(frozen=True, slots=True)
class Call:
    """A statement, and the variables that it reads and makes."""

    call: str
    reads: tuple[str, ...]
    variable: str
    size: int
    on_planes: bool = False
    traced: bool = True


@dataclass(slots=True)
class Part:
    """Calls that run one after the other, all on planes or all in one loop over packs."""

    on_planes: bool
    steps: list[Call]
    tensors: list[Tensor] = field(default_factory=list)
    loads: list[tuple[int, Tensor]] = field(default_factory=list)
    unpacked: list[Tensor] = field(default_factory=list)
    packed: list[Tensor] = field(default_factory=list)
    stores: list[tuple[int, Tensor]] = field(default_factory=list)


def plan(firmware: Firmware) -> dict[str, Any]:
    """Return what the template of the bridge needs besides what every bridge needs."""
    named: list[Port | Step] = [*firmware.ports_in, *firmware.steps, *firmware.ports_out]
    tensors = {item.variable: Tensor(item.variable, item.type, item.size) for item in named}
    parts = list(_parts(firmware))
    maker = {call.variable: part for part in parts for call in part.steps}
    maker |= dict.fromkeys((port.variable for port in firmware.ports_in), parts[0])
    on_planes = [call for part in parts for call in part.steps if part.on_planes]
    for name in {name for call in on_planes for name in (call.variable, *call.reads)}:
        tensors[name].planes = True
    for call in on_planes:
        tensors[call.variable].whole = True
    parts[0].loads = [(n, tensors[port.variable]) for n, port in enumerate(firmware.ports_in)]
    for number, port in enumerate(firmware.ports_out):
        source = maker[port.variable]
        reader = next(part for part in parts if not part.on_planes and parts.index(part) >= parts.index(source))
        reader.stores.append((number, tensors[port.variable]))
    for part in parts:
        _connect(part, tensors, maker)
    numbers = {step.variable: n for n, step in enumerate(firmware.steps)}
    return {"tensors": list(tensors.values()), "parts": parts, "numbers": numbers}


def _parts(firmware: Firmware) -> Iterator[Part]:
    from kconvert.firmware import variable_of

    waiting = [
        Call(s.call, tuple(variable_of(v) for v in s.node.inputs), s.variable, s.size, s.node.on_planes)
        for s in firmware.steps
    ]
    waiting += [
        Call(f"nnet::convert<{p.size}>({p.copy_of}, {p.variable});", (p.copy_of,), p.variable, p.size, traced=False)
        for p in firmware.ports_out
        if p.copy_of
    ]
    made, on_planes = {port.variable for port in firmware.ports_in}, False
    while waiting:
        ready: list[Call] = []
        for call in waiting:
            if call.on_planes == on_planes and made.issuperset(call.reads):
                ready.append(call)
                made.add(call.variable)
        waiting = [call for call in waiting if call not in ready]
        yield Part(on_planes, ready)
        on_planes = not on_planes
    if not on_planes:  # a last loop, for what planes leave to be stored
        yield Part(False, [])


def _connect(part: Part, tensors: dict[str, Tensor], maker: dict[str, Part]) -> None:
    """Say which tensors a part declares, and how they come into it and leave it."""
    read = {name for call in part.steps for name in call.reads} | {t.variable for _, t in part.stores}
    made = {call.variable for call in part.steps} | {t.variable for _, t in part.loads}
    part.tensors = [tensor for name, tensor in tensors.items() if name in read | made]
    if part.on_planes:
        return
    for tensor in part.tensors:
        if tensor.variable in made:
            part.packed += [tensor] if tensor.planes else []
        elif maker[tensor.variable].on_planes:
            part.unpacked.append(tensor)
        else:
            tensor.kept = True
