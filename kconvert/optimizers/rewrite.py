"""What a pass is, and the driver that applies it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any

from kconvert.layers import Node

if TYPE_CHECKING:
    from kconvert.model import HLSModel

Kind = type[Node] | UnionType


@dataclass(frozen=True, slots=True)
class Pass:
    """A named step of the pipeline: ``run(model)`` changes the graph and says whether it did."""

    name: str
    run: Callable[[HLSModel], bool]
    doc: str


def whole(function: Callable[[HLSModel], bool]) -> Pass:
    """Make a pass of a function that looks at the model as a whole."""
    return Pass(function.__name__, function, function.__doc__ or "")


def rewrite(first: Kind, then: Kind | None = None) -> Callable[[Callable[..., bool]], Pass]:
    """Make a pass of a local rule.

    The rule is called as ``rule(model, node)`` for every node of kind `first`; with `then`, as ``rule(model, node,
    user)`` for every such node whose only reader is a node of kind `then`. It changes the graph through the verbs of
    the model and returns True, or returns False and leaves all as it was.
    """

    def decorate(rule: Callable[..., bool]) -> Pass:
        def visit(model: HLSModel, node: Node) -> bool:
            if not isinstance(node, first):
                return False
            if then is None:
                return rule(model, node)
            users = node.output.users
            only = len(users) == 1 and node.output not in model.outputs
            return only and isinstance(users[0], then) and rule(model, node, users[0])

        return Pass(rule.__name__, lambda model: _drive(model, visit), rule.__doc__ or "")

    return decorate


def _drive(model: HLSModel, visit: Callable[[HLSModel, Node], bool]) -> bool:
    """Visit every node once, and again those around a change, until nothing is left to do."""
    queue: deque[Node] = deque(model.nodes)
    waiting = set(map(id, queue))
    changed = False
    while queue:
        node = queue.popleft()
        waiting.discard(id(node))
        if node not in model:
            continue
        around = _neighbours(node)
        if not visit(model, node):
            continue
        changed = True
        for near in [node, *around, *_neighbours(node)]:
            if near in model and id(near) not in waiting:
                queue.append(near)
                waiting.add(id(near))
    return changed


def _neighbours(node: Node) -> list[Any]:
    return [*(v.producer for v in node.inputs), *node.output.users]
