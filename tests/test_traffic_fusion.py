"""Joined operations: what is left of each by hand, and networks against a walk over groups."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.errors import UsageError
from hqtool.traffic.bill import Bits, total, works_bill
from hqtool.traffic.fusing.choice import DEFAULT_FUSE, FUSABLE, parse_fuse
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.network import network_works

#: So unlike that no two sums of them are equal by accident.
BITS = Bits(w=3, a=5, g=7, acc=1000, gw=13)
W, A, G, LOOK, GW = BITS.w, BITS.a, BITS.g, 2 * BITS.acc, BITS.gw
NOTHING: frozenset[str] = frozenset()

#: Every tensor between layers has 4 channels at 6 positions.
E = 24
SIZES: dict[str, Any] = {"in_channels": 4, "input": 6}
PRODUCT = SIZES | {"op": "linear", "out_channels": 4}


def network(*tables: dict[str, Any]) -> list[Layer]:
    """Layers called after their places: 0, 1, 2 …"""
    return [layer_from_json({"name": str(i)} | table) for i, table in enumerate(tables)]


def norm(kind: str, **keys: Any) -> dict[str, Any]:
    return SIZES | {"op": "norm", "kind": kind} | keys


def activation(kind: str, **keys: Any) -> dict[str, Any]:
    return SIZES | {"op": "activation", "kind": kind} | keys


def add(*sources: str) -> dict[str, Any]:
    return SIZES | {"op": "add"} | ({"from": list(sources)} if sources else {})


def moved(
    layers: list[Layer], pass_name: str = "forward", fuse: frozenset[str] = DEFAULT_FUSE
) -> list[tuple[int, int]]:
    """For each layer, static bits and what is dynamic on top."""
    bills = [
        works_bill(works, BITS, layer.repeat)
        for layer, works in zip(layers, network_works(layers, pass_name, fuse), strict=True)
    ]
    return [(int(b.static_bits), int(b.dynamic_bits - b.static_bits)) for b in bills]


#: What a linear layer of 4 to 4 moves, which no fusion changes.
FORWARD = (16 * W + 2 * E * A, E * LOOK)
BACKWARD = (
    (E * G + 16 * W + E * G) + (E * A + E * G + 16 * GW),
    E * LOOK,
)

# --- forward ------------------------------------------------------------------------------------


def test_what_is_left_of_joined_operations() -> None:
    """A norm's weights and a sum's other operand; the product's look is that of the group's end."""
    layers = network(PRODUCT, norm("batch"), add(), activation("relu"))
    assert moved(layers) == [FORWARD, (4 * W, 0), (E * A, 0), (0, 0)]


def test_nothing_is_joined_where_nothing_may_be() -> None:
    layers = network(PRODUCT, norm("batch"), add(), activation("relu"))
    assert moved(layers, fuse=NOTHING) == [
        FORWARD,
        (2 * E * A + 4 * W, E * LOOK),
        (3 * E * A, E * LOOK),
        (2 * E * A, 0),
    ]


def test_only_what_may_be_joined_is() -> None:
    layers = network(PRODUCT, activation("gelu"), norm("layer"), activation("tanh"))
    found = moved(layers, fuse=frozenset({"activation"}))
    assert found == [FORWARD, (0, 0), (2 * E * A + 4 * W, E * LOOK), (0, 0)]


@pytest.mark.parametrize("kind", ["group", "instance"])
def test_statistics_of_more_than_a_row_come_too_late(kind: str) -> None:
    layers = network(PRODUCT, norm(kind), activation("relu"))
    assert moved(layers) == [FORWARD, (2 * E * A + 4 * W, E * LOOK), (0, 0)]


def test_the_look_of_a_group_that_begins_without_one() -> None:
    """Looked-up rows keep their levels; their sum with others does not."""
    rows = {"op": "embedding", "num_embeddings": 9, "embedding_dim": 4, "input": 6}
    layers = network(rows, add(), activation("gelu"))
    assert moved(layers) == [(E * W + E * A, 0), (E * A, E * LOOK), (0, 0)]


def test_a_tensor_that_is_read_again_is_saved_all_the_same() -> None:
    """Before a norm a transformer keeps what it adds later."""
    before = network(PRODUCT, add(), norm("layer"), PRODUCT, add("3", "1"))
    left = (E * A + 4 * W, E * LOOK)  # its own save and look
    assert moved(before) == [FORWARD, (E * A, 0), left, FORWARD, (E * A, 0)]


@pytest.mark.parametrize(
    "tables",
    [
        [PRODUCT, activation("gelu", input=5)],
        [PRODUCT, activation("gelu", batch=2)],
        [PRODUCT, PRODUCT, activation("gelu", **{"from": "0"})],
        [activation("gelu")],
    ],
)
def test_only_what_follows_is_joined(tables: list[dict[str, Any]]) -> None:
    layers = network(*tables)
    assert moved(layers) == moved(layers, fuse=NOTHING)


def test_softmax_joins_one_product_of_each_head() -> None:
    """Of 2 heads, in 3 samples; the softmax lists heads and samples together."""
    scores = {"op": "matmul", "m": 5, "k": 4, "n": 5, "repeat": 2, "batch": 3}
    rows = activation("softmax", in_channels=5, input=5, batch=6)
    assert moved(network(scores, rows))[1] == (0, 0)


# --- training -----------------------------------------------------------------------------------


def test_a_residual_block_in_training() -> None:
    """Product 0 is read by product 1 and by the sum 6, so that its gradient is a sum of two."""
    relu = activation("relu")
    layers = network(
        PRODUCT, PRODUCT, norm("batch"), relu, PRODUCT, norm("batch"), add("5", "0"), relu
    )
    normed = (2 * E * A + 4 * W, E * LOOK)
    assert moved(layers, "forward") == [
        FORWARD, FORWARD, (4 * W, 0), (0, 0), FORWARD, (4 * W, 0), (E * A, 0), (0, 0),
    ]  # fmt: skip
    statistics = E * G + E * A + 4 * GW
    norm_back = (statistics + E * G + E * A + 4 * W + E * G, E * LOOK)
    expected = [
        (BACKWARD[0] + E * G, BACKWARD[1]),  # the sum reads the gradient that the add passes on
        BACKWARD,
        norm_back,
        (E * A, 0),  # only where it was above 0
        BACKWARD,
        norm_back,
        (0, 0),
        (2 * E * G + E * A, 0),  # the loss's gradient comes from memory
    ]
    assert moved(layers, "backward") == expected
    forward = [FORWARD, FORWARD, normed, (0, 0), FORWARD, normed, (E * A, 0), (0, 0)]
    pairs = zip(forward, expected, strict=True)
    assert moved(layers, "both") == [(f[0] + b[0], f[1] + b[1]) for f, b in pairs]


def test_what_the_backward_pass_reads_is_saved() -> None:
    """GELU's derivative needs its input; tanh's its output, which the sum would swallow."""
    layers = network(PRODUCT, activation("gelu"), PRODUCT, activation("tanh"), add(), PRODUCT)
    forward = [FORWARD, (0, 0), FORWARD, (0, 0), (E * A, 0), FORWARD]
    assert moved(layers) == forward
    saved = (E * A, E * LOOK)
    both = [FORWARD, saved, FORWARD, (0, 0), (2 * E * A, E * LOOK), FORWARD]
    backward = moved(layers, "backward")
    found = moved(layers, "both")
    assert [(b[0] - r[0], b[1] - r[1]) for b, r in zip(found, backward, strict=True)] == both


def test_backward_operations_join_what_makes_their_gradient() -> None:
    layers = network(PRODUCT, norm("layer"), activation("gelu"), PRODUCT)
    assert moved(layers, "backward") == [
        BACKWARD,
        (E * A + 4 * W + 4 * GW, 0),
        (E * A, 0),
        BACKWARD,
    ]


def test_gradients_at_a_fork_are_summed_up_in_memory_where_sums_are_not_joined() -> None:
    layers = network(PRODUCT, PRODUCT, PRODUCT | {"from": "0"}, add("1", "2"))
    summed = (BACKWARD[0] + 3 * E * G, BACKWARD[1] + E * LOOK)
    assert moved(layers, "backward", NOTHING) == [summed, BACKWARD, BACKWARD, (0, 0)]
    joined = (BACKWARD[0] + E * G, BACKWARD[1])
    assert moved(layers, "backward") == [joined, BACKWARD, BACKWARD, (0, 0)]


def test_parts_of_a_tensor_are_not_summed_up() -> None:
    """Queries, keys and values are thirds of one product; each third has one gradient."""
    qkv = SIZES | {"op": "linear", "out_channels": 12}
    scores = {"op": "matmul", "m": 6, "k": 4, "n": 6, "from": ["0", "0"]}
    rows = activation("softmax", in_channels=6, input=6)
    values = {"op": "matmul", "m": 6, "k": 6, "n": 4, "from": ["2", "0"]}
    layers = network(qkv, scores, rows, values)
    alone, found = moved([layers[0]], "backward"), moved(layers, "backward")
    assert found[0] == alone[0]
    assert found[2] == (36 * A, 0)  # the softmax's own output


# --- random networks ----------------------------------------------------------------------------

OPERATIONS = [
    PRODUCT,
    add(),
    *(norm(kind) for kind in ("batch", "layer", "group")),
    *(activation(kind) for kind in ("relu", "gelu", "softmax", "tanh")),
    SIZES | {"op": "pool", "kernel": 3, "stride": 1, "padding": 1, "input": [6]},
]
CHAINS = st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=12).map(lambda t: network(*t))
FUSIONS = st.sets(st.sampled_from(FUSABLE)).map(frozenset)


@settings(max_examples=100, deadline=None)
@given(layers=CHAINS, fuse=FUSIONS)
def test_a_chain_moves_what_its_groups_do(layers: list[Layer], fuse: frozenset[str]) -> None:
    """Slow oracle: a group loads all its operands but what lies between, and saves its end once."""
    groups: list[list[Layer]] = []
    for layer in layers:
        joins = layer.op in fuse and layer.kind not in ("group", "instance")
        if groups and joins:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    static = dynamic = 0
    for group in groups:
        works = [next(w for w in layer.works() if w.pass_name == "forward") for layer in group]
        loads = sum(getattr(BITS, r.width) * r.numel for work in works for r in work.reads)
        static += loads - (len(group) - 1) * E * A + E * A
        dynamic += E * LOOK * any(work.quantizes for work in works)
    found = moved(layers, fuse=fuse)
    assert [sum(each) for each in zip(*found, strict=True)] == [static, dynamic]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), fuse=FUSIONS, pass_name=st.sampled_from(["forward", "backward", "both"]))
def test_joining_saves_and_never_touches_a_product(
    data: st.DataObject, fuse: frozenset[str], pass_name: str
) -> None:
    """In any graph: more joining never moves more; gradients' sums aside, products are as ever."""
    tables: list[dict[str, Any]] = []
    for number in range(data.draw(st.integers(1, 10))):
        table = data.draw(st.sampled_from(OPERATIONS))
        count = 2 if table["op"] == "add" else 1
        earlier = st.lists(st.integers(0, number - 1), min_size=count, max_size=count)
        sources = {"from": [str(n) for n in data.draw(earlier)]} if number else {}
        tables.append(table | sources)
    layers = network(*tables)
    alone, some, most = (moved(layers, pass_name, each) for each in (NOTHING, fuse, DEFAULT_FUSE))
    for one, fewer, fewest in zip(alone, some, most, strict=True):
        assert one[0] >= fewer[0] >= fewest[0] >= 0
    assert sum(d for _, d in alone) >= sum(d for _, d in some) >= sum(d for _, d in most) >= 0
    if pass_name == "forward":
        products = [i for i, layer in enumerate(layers) if layer.op in ("linear", "pool")]
        assert [alone[i] for i in products] == [most[i] for i in products]


@settings(max_examples=50, deadline=None)
@given(layers=CHAINS, pass_name=st.sampled_from(["forward", "backward", "both"]))
def test_unfused_a_chain_is_the_sum_of_its_layers(layers: list[Layer], pass_name: str) -> None:
    together = network_works(layers, pass_name, NOTHING)
    apart = [network_works([layer], pass_name)[0] for layer in layers]
    assert total(works_bill(each, BITS) for each in together) == total(
        works_bill(each, BITS) for each in apart
    )


# --- the option ---------------------------------------------------------------------------------


def test_fusion_is_parsed() -> None:
    assert parse_fuse("none") == NOTHING
    assert parse_fuse("norm, add") == {"norm", "add"}
    assert parse_fuse(",".join(FUSABLE)) == DEFAULT_FUSE


@pytest.mark.parametrize("text", ["", "nrom", "norm,none", "pool", "norm,"])
def test_wrong_fusions_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be fused") as caught:
        parse_fuse(text)
    assert "norm" in caught.value.remedy
