"""The verifier finds every way in which a graph can be broken, and names the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import kconvert
from kconvert import FixedType, HLSModel
from kconvert.errors import GraphError
from kconvert.layers import Identity, Node, Relu, Value
from kconvert.optimizers import rewrite, whole
from kconvert.optimizers.verify import verify
from tests.models import mlp
from tests.optimizers.common import graph_of


@pytest.fixture
def hls_model() -> HLSModel:
    return kconvert.convert_from_keras_model(mlp())


def test_what_the_pipeline_makes_is_sound(hls_model: HLSModel) -> None:
    verify(hls_model, final=True)


def _unknown_reader(model: HLSModel) -> None:
    model["fc2"].output.users.remove(model["fc2_relu"])


def _wrong_order(model: HLSModel) -> None:
    model.nodes.append(model.nodes.pop(1))


def _same_name(model: HLSModel) -> None:
    model["fc2"].name = "fc1"


def _wrong_shape(model: HLSModel) -> None:
    model["fc2"].output.shape = (99,)


def _foreign_reader(model: HLSModel) -> None:
    Relu(name="stranger").connect(model["fc2"].output)


def _foreign_output(model: HLSModel) -> None:
    model.outputs = [Relu(name="stranger").connect(model["fc2"].output).output]
    model["fc2"].output.users.pop()


def _foreign_input(model: HLSModel) -> None:
    stranger: Node = Identity(name="stranger")
    model["output"].inputs = [Value(stranger, (16,))]


BROKEN: list[tuple[Callable[[HLSModel], None], str]] = [
    (_unknown_reader, "'fc2' does not know its reader 'fc2_relu'"),
    (_wrong_order, "'fc1_relu' reads 'fc1', which does not come before it"),
    (_same_name, "two layers are called 'fc1'"),
    (_wrong_shape, r"'fc2' has shape \(99,\), but makes \(16,\)"),
    (_foreign_reader, "'fc2' is read by 'stranger', which is not in the model"),
    (_foreign_output, "output 'stranger' is not in the model"),
    (_foreign_input, "'output' reads 'stranger'"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_damage_is_found_and_named(hls_model: HLSModel, damage: Callable[[HLSModel], None], message: str) -> None:
    damage(hls_model)
    with pytest.raises(GraphError, match=message):
        verify(hls_model)


def test_a_final_graph_has_all_types(hls_model: HLSModel) -> None:
    hls_model["fc2"].accum_type = None  # type: ignore[attr-defined]
    verify(hls_model)
    with pytest.raises(GraphError, match="'fc2': the accum type was not inferred"):
        verify(hls_model, final=True)


def test_a_final_graph_has_no_type_beyond_64_bits(hls_model: HLSModel) -> None:
    hls_model["fc2"].result_type = FixedType(65, 6)
    with pytest.raises(GraphError, match=r"'fc2': the result type ap_fixed<65,6> is wider than 64 bits"):
        verify(hls_model, final=True)


def test_a_final_graph_holds_no_unsplit_activation() -> None:
    hls_model = graph_of(mlp())
    verify(hls_model)
    hls_model["jet_features"].result_type = FixedType(16, 6)
    with pytest.raises(GraphError, match="'fc1' still holds its activation"):
        verify(hls_model, final=True)


def test_run_verifies_after_every_pass() -> None:
    @whole
    def break_it(model: HLSModel) -> bool:
        _same_name(model)
        return True

    with pytest.raises(GraphError, match="two layers are called"):
        graph_of(mlp()).run([break_it])


# ---- the verbs a pass uses ----


def test_replace_keeps_place_name_and_readers() -> None:
    hls_model = graph_of(mlp())
    old, position = hls_model["softmax"], hls_model.nodes.index(hls_model["softmax"])
    hls_model.replace(old, Relu(name="softmax"))
    verify(hls_model)
    assert hls_model.nodes.index(hls_model["softmax"]) == position
    assert hls_model.outputs[0].producer is hls_model["softmax"]
    assert old not in hls_model
    assert hls_model["softmax"].output.names == ["softmax"]


def test_a_rule_sees_pairs_with_a_single_reader_and_what_a_change_makes() -> None:
    """Two identities in a row: removing one makes a pair of the other and its neighbour."""
    hls_model = graph_of(mlp())
    for name in ("one", "two", "three"):
        hls_model.insert_after(hls_model["fc1"].output, Identity(name=name))
    seen = []

    @rewrite(Identity, then=Identity)
    def join(model: HLSModel, first: Identity, second: Identity) -> bool:
        seen.append((first.name, second.name))
        model.remove(second)
        return True

    assert join.run(hls_model)
    verify(hls_model)
    assert len(seen) == 2
    assert sum(isinstance(n, Identity) for n in hls_model.nodes) == 1
    assert not join.run(hls_model)


def test_an_unknown_layer_lists_those_there_are(hls_model: HLSModel) -> None:
    with pytest.raises(GraphError, match=r"no layer 'fc9' \(layers: jet_features, fc1,"):
        hls_model["fc9"]
