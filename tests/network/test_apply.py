"""Every edit, at heads, units, positions, groups and rows, against values overwritten cell by cell in a plain hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.edit import (
    Ablate,
    Add,
    Custom,
    Edit,
    Patch,
    Project,
    Scale,
    Set,
    Steer,
    Substitute,
    SwapAlong,
    edits_from_json,
    edits_to_json,
)
from openwork.errors import BadInput, EditMissed, Misaligned, UnknownName
from openwork.network import Network
from openwork.network.apply import derangement
from openwork.site import Site, Where
from openwork.task import Inputs, as_rows

from .conftest import Opener
from .oracle import forward, places, watch, written
from .tiny import HEAD, WIDTH, example, token_ids

ROWS, LENGTH = 3, 9
GROUPS = {"name": ((1, 2), (4,), (0, 5, 8)), "rare": ((), (3,), ())}
EVERYWHERE = [(row, position) for row in range(ROWS) for position in range(LENGTH)]

Cells = list[tuple[int, int]]
SELECTIONS: dict[str, tuple[Any, Cells]] = {
    "everywhere": (None, EVERYWHERE),
    "one position": (4, [(row, 4) for row in range(ROWS)]),
    "positions from both ends": ((2, -1, -3), [(row, p) for row in range(ROWS) for p in (2, 6, 8)]),
    "last": ("last", [(row, 8) for row in range(ROWS)]),
    "first": ("first", [(row, 0) for row in range(ROWS)]),
    "group of unequal sizes": ("name", [(0, 1), (0, 2), (1, 4), (2, 0), (2, 5), (2, 8)]),
    "group that one row has": ("rare", [(1, 3)]),
    "some rows": (Where(rows=(0, 2)), [(row, p) for row in (0, 2) for p in range(LENGTH)]),
    "a position of one row": (Where(positions=(5,), rows=(1,)), [(1, 5)]),
    "the prefill": (Where(steps=(0,)), EVERYWHERE),
}
SITES = {
    "gpt2": ["blocks.1.attn.z[0,2]", "blocks.1.attn.z[3]", "blocks.1.attn.z", "blocks.1.mlp.hidden[5,17]"],
    "llama": ["blocks.1.attn.z[1]", "blocks.1.resid_post", "blocks.1.mlp.hidden[0]", "blocks.0.attn.out"],
    "gemma2": ["blocks.1.attn.out", "blocks.1.mlp.in"],
    "neox": ["blocks.1.mlp.out[3,4]", "blocks.1.resid_pre"],
    "bert": ["blocks.1.attn.out", "blocks.1.resid_mid"],
    "attention-only": ["blocks.1.attn.z[2]", "blocks.1.resid_pre"],
}
SITES["gpt2"] += ["blocks.1.resid_post", "blocks.1.resid_post[7]", "blocks.0.resid_pre", "embed", "final_norm"]
PAIRS = [(kind, site) for kind, sites in SITES.items() for site in sites]


def axis_shape(value: Tensor, site: str) -> Tensor:
    """A hooked tensor in the axes of its site: heads apart."""
    return value.unflatten(-1, (-1, HEAD)) if ".z" in site else value


def inputs_of(seed: int = 0) -> Inputs:
    return Inputs(as_rows(token_ids(ROWS, LENGTH, seed)), GROUPS)


def by_hand(net: Network, kind: str, site: str, new: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    """The logits with a plain hook that writes ``new(value)`` at the site."""
    place = places(kind, 3)[Site.parse(site).path]
    at = {place: lambda value: new(axis_shape(value, site)).reshape(value.shape)}
    return forward(net.module, {"input_ids": ids}, at)


def value_at(net: Network, kind: str, site: str, ids: Tensor) -> Tensor:
    place = places(kind, 3)[Site.parse(site).path]
    return axis_shape(watch(net.module, {"input_ids": ids}, [place])[place], site)


def check(
    net: Network,
    kind: str,
    edit: Edit,
    rule: Callable[[Tensor], Callable[[int, int], Any]],
    cells: Iterable[tuple[int, int]],
    **options: Any,
) -> None:
    """The edited run keeps, and predicts from, what `rule` writes in each cell by hand."""
    site, cells = str(edit.site), list(cells)
    plain = value_at(net, kind, site, token_ids(ROWS, LENGTH))
    expected = written(plain, cells, rule(plain), edit.site.index)
    assert not torch.equal(expected, plain)
    run = net.run(inputs_of(), edits=edit, keep=edit.site.path, **options)
    torch.testing.assert_close(run[edit.site.path], expected, rtol=1e-5, atol=1e-6)
    untouched = written(torch.zeros_like(plain), cells, lambda r, p: 1.0, edit.site.index) == 0
    assert torch.equal(run[edit.site.path][untouched], plain[untouched])
    expected_logits = by_hand(net, kind, site, lambda value: expected, token_ids(ROWS, LENGTH))
    torch.testing.assert_close(run.logits, expected_logits, rtol=1e-4, atol=1e-5)
    assert [x.rows for x in run.ledger] == [len({row for row, _ in cells})]


def parts(site: str) -> list[int] | slice:
    index = Site.parse(site).index
    return list(index) if index else slice(None)


# -- which cells --


@pytest.mark.parametrize(("where", "cells"), SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize(("kind", "site"), PAIRS[::2])
def test_scaling_reaches_the_selected_cells_and_no_other(
    opened: Opener, kind: str, site: str, where: Any, cells: Cells
) -> None:
    def rule(plain: Tensor) -> Callable[[int, int], Any]:
        return lambda row, position: -1.5 * plain[row, position][parts(site)]

    check(opened(kind), kind, Scale(site, where, factor=-1.5), rule, cells)


# -- what each edit writes --


@dataclass(frozen=True)
class Case:
    """An edit, and what it must write into one cell: a function of the site's values here and in the source run."""

    edit: Callable[[str, Any], Edit]
    rule: Callable[[Tensor, Tensor, int, int], Any]


WEIGHTS = torch.linspace(-1, 1, WIDTH)
CASES = {
    "zero": Case(lambda s, w: Ablate(s, w), lambda x, y, r, p: 0.0),
    "set": Case(lambda s, w: Set(s, w, value=0.3), lambda x, y, r, p: 0.3),
    "add": Case(lambda s, w: Add(s, w, vector=0.5, scale=-2.0), lambda x, y, r, p: x[r, p] - 1.0),
    "custom": Case(lambda s, w: Custom(s, w, fn=lambda v: v.sin()), lambda x, y, r, p: x[r, p].sin()),
    "patch": Case(lambda s, w: Patch(s, w, source="other"), lambda x, y, r, p: y[r, p]),
    "mean": Case(lambda s, w: Ablate(s, w, how="mean"), lambda x, y, r, p: x.flatten(0, 1).mean(0)),
    "mean of a source": Case(
        lambda s, w: Ablate(s, w, how="mean", source="other"), lambda x, y, r, p: y.flatten(0, 1).mean(0)
    ),
    "substitute": Case(lambda s, w: Substitute(s, w, by="half"), lambda x, y, r, p: x[r, p] / 2 + 0.1),
}


@pytest.mark.parametrize("where", ["positions from both ends", "group of unequal sizes"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("kind", "site"), PAIRS[1::3])
def test_each_edit_writes_its_value(opened: Opener, kind: str, site: str, case: Case, where: str) -> None:
    net = opened(kind)
    other = value_at(net, kind, site, token_ids(ROWS, LENGTH, seed=9))
    selection, cells = SELECTIONS[where]

    def rule(plain: Tensor) -> Callable[[int, int], Any]:
        def cell(row: int, position: int) -> Any:
            new = case.rule(plain, other, row, position)
            return new[parts(site)] if isinstance(new, Tensor) else new

        return cell

    options = {"sources": {"other": inputs_of(9)}, "surrogates": {"half": lambda value: value / 2 + 0.1}}
    check(net, kind, case.edit(site, selection), rule, cells, **options)


def test_a_vector_broadcasts_against_the_part(gpt2: Network) -> None:
    check(gpt2, "gpt2", Add("blocks.1.resid_post", 4, vector=WEIGHTS), lambda x: lambda r, p: x[r, p] + WEIGHTS,
          SELECTIONS["one position"][1])  # fmt: skip
    vector = torch.randn(2, HEAD)
    check(gpt2, "gpt2", Set("blocks.1.attn.z[0,2]", value=vector), lambda x: lambda r, p: vector, EVERYWHERE)


# -- subspaces --

BASIS = torch.linalg.qr(torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(2)))[0].T
SKEWED = torch.tensor([[2.0, 0.0], [1.0, 3.0]]) @ BASIS
HEAD_BASIS = torch.linalg.qr(torch.randn(HEAD, 3, generator=torch.Generator().manual_seed(3)))[0].T


@pytest.mark.parametrize(
    ("site", "given", "basis"),
    [("blocks.1.resid_post", SKEWED, BASIS), ("blocks.1.attn.z[0,2]", HEAD_BASIS, HEAD_BASIS)],
)
def test_subspaces(gpt2: Network, site: str, given: Tensor, basis: Tensor) -> None:
    ids, other = token_ids(ROWS, LENGTH), token_ids(ROWS, LENGTH, seed=9)
    theirs = value_at(gpt2, "gpt2", site, other)
    selection, cells = SELECTIONS["positions from both ends"]

    def within(vector: Tensor) -> Tensor:
        out = torch.zeros_like(vector)
        for direction in basis:
            out = out + (vector @ direction).unsqueeze(-1) * direction
        return out

    def removed(x: Tensor) -> Any:
        return lambda r, p: (x[r, p] - within(x[r, p]))[parts(site)]

    def left(x: Tensor) -> Any:
        return lambda r, p: within(x[r, p])[parts(site)]

    def swapped(x: Tensor) -> Any:
        return lambda r, p: (x[r, p] + within(theirs[r, p]) - within(x[r, p]))[parts(site)]

    sources = {"clean": other}
    check(gpt2, "gpt2", Project(site, selection, directions=given), removed, cells)
    check(gpt2, "gpt2", Project(site, selection, directions=given, keep=True), left, cells)
    check(gpt2, "gpt2", SwapAlong(site, selection, directions=given), swapped, cells, sources=sources)

    base = Site.parse(site).path
    new = gpt2.run(ids, edits=SwapAlong(site, selection, directions=given), sources=sources, keep=base)[base]
    plain = gpt2.run(ids, keep=base)[base]
    for row, position in cells:
        for part in Site.parse(site).index or [...]:
            a, b, c = (v[row, position][part] for v in (new, theirs, plain))
            torch.testing.assert_close(a @ basis.T, b @ basis.T, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a - within(a), c - within(c), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("site", ["blocks.1.resid_post", "blocks.1.attn.z[0,2]"])
def test_steering_keeps_the_length_or_sets_the_coordinate(gpt2: Network, site: str) -> None:
    selection, cells = SELECTIONS["positions from both ends"]
    width = value_at(gpt2, "gpt2", site, token_ids(ROWS, LENGTH)).shape[-1]
    direction = torch.randn(width, generator=torch.Generator().manual_seed(1))
    unit = direction / direction.norm()

    def turned(x: Tensor) -> Any:
        def one(r: int, p: int) -> Tensor:
            new = x[r, p] + 0.7 * direction
            return (new / new.norm(dim=-1, keepdim=True) * x[r, p].norm(dim=-1, keepdim=True))[parts(site)]

        return one

    def clamped(x: Tensor) -> Any:
        return lambda r, p: (x[r, p] - (x[r, p] @ unit).unsqueeze(-1) * unit + 0.7 * unit)[parts(site)]

    check(gpt2, "gpt2", Steer(site, selection, direction, 0.7, "turn"), turned, cells)
    check(gpt2, "gpt2", Steer(site, selection, direction, 0.7, "clamp"), clamped, cells)


def test_directions_of_the_wrong_size(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="expected directions of 32 channels"):
        gpt2.run(token_ids(), edits=Project("blocks.1.resid_post", directions=torch.ones(5)))
    with pytest.raises(BadInput, match="a direction of 32 channels"):
        gpt2.run(token_ids(), edits=Steer("blocks.1.resid_post", direction=torch.ones(5)))
    with pytest.raises(BadInput, match="broadcasts"):
        gpt2.run(token_ids(), edits=Add("blocks.1.resid_post", vector=torch.ones(5)))
    with pytest.raises(BadInput, match="broadcasts"):
        gpt2.run(token_ids(), edits=Set("blocks.1.attn.z[0,1]", value=torch.ones(3, HEAD)))


# -- resampling and noise --


def test_resampling_takes_every_row_from_another_one(gpt2: Network) -> None:
    ids = token_ids(6, LENGTH)
    plain = gpt2.run(ids, keep="blocks.1.attn.z")["blocks.1.attn.z"]
    orders = []
    for seed in range(4):
        edit = Ablate("blocks.1.attn.z[2]", how="resample", seed=seed)
        new = gpt2.run(ids, edits=edit, keep="blocks.1.attn.z")["blocks.1.attn.z"]
        order = [next(o for o in range(6) if torch.equal(new[r, :, 2], plain[o, :, 2])) for r in range(6)]
        assert sorted(order) == list(range(6))
        assert all(here != there for here, there in enumerate(order))
        assert torch.equal(new[:, :, [0, 1, 3]], plain[:, :, [0, 1, 3]])
        again = gpt2.run(ids, edits=edit, keep="blocks.1.attn.z")["blocks.1.attn.z"]
        assert torch.equal(again, new)
        orders.append(order)
    assert len({tuple(o) for o in orders}) > 1


def test_resampling_needs_rows_to_take_from(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="two rows"):
        gpt2.run(token_ids(1), edits=Ablate("blocks.1.attn.z", how="resample"))
    with pytest.raises(Misaligned, match="one length"):
        gpt2.run(Inputs(((5, 6, 7), (5, 6))), edits=Ablate("blocks.1.attn.z", how="resample"))
    assert sorted(derangement(5, 0)) == list(range(5))


def test_noise_has_the_mean_and_spread_of_the_source_and_hangs_on_the_seed(gpt2: Network) -> None:
    ids = token_ids(40, 40)
    site = "blocks.1.mlp.out"
    plain = gpt2.run(ids, keep=site)[site].flatten(0, 1)
    first, second, again = (
        gpt2.run(ids, edits=Ablate(site, how="noise", seed=seed), keep=site)[site].flatten(0, 1) for seed in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    spread = plain.std(0)
    assert float(((first.mean(0) - plain.mean(0)).abs() / spread).max()) < 5 / 40
    assert float((first.std(0) / spread - 1).abs().max()) < 0.15
    assert float(torch.corrcoef(torch.stack([first[:, 0], plain[:, 0]]))[0, 1].abs()) < 0.12


def test_statistics_leave_padding_out(gpt2: Network) -> None:
    ragged = Inputs(((5, 6, 7, 8, 9, 10), (11, 12)))
    site = "blocks.1.resid_post"
    rows = [gpt2.run(Inputs((row,)), keep=site)[site][0] for row in ragged.ids]
    mean = torch.cat(rows).mean(0)
    run = gpt2.run(ragged, edits=Ablate(site, 1, how="mean"), keep=site)
    torch.testing.assert_close(run[site][:, 1], mean.expand(2, -1), rtol=1e-5, atol=1e-5)


# -- several edits --


def test_edits_at_one_site_apply_in_the_order_given(gpt2: Network) -> None:
    site = "blocks.1.resid_post"
    plain = value_at(gpt2, "gpt2", site, token_ids())
    double, plus = Scale(site, factor=2.0), Add(site, vector=1.0)
    for edits, expected in [([double, plus], plain * 2 + 1), ([plus, double], (plain + 1) * 2)]:
        run = gpt2.run(token_ids(), edits=edits, keep=site)
        torch.testing.assert_close(run[site], expected, rtol=1e-6, atol=1e-6)
        logits = by_hand(gpt2, "gpt2", site, lambda value, new=expected: new, token_ids())
        torch.testing.assert_close(run.logits, logits, rtol=1e-5, atol=1e-5)
    run = gpt2.run(token_ids(), edits=[Set(site, 3, value=1.0), Set(site, value=2.0), Ablate(site, (3, 4))], keep=site)
    assert bool((run[site][:, [3, 4]] == 0).all())
    assert bool((run[site][:, [0, 1, 2, 5, 6, 7, 8]] == 2).all())


def test_edits_upstream_are_seen_downstream(gpt2: Network) -> None:
    first, second = Scale("blocks.0.attn.z[1]", factor=3.0), Scale("blocks.2.mlp.hidden[5]", factor=-2.0)
    at = places("gpt2", 3)

    def head(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., HEAD : 2 * HEAD] *= 3
        return value

    def unit(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 5] *= -2
        return value

    hooks = {at["blocks.0.attn.z"]: head, at["blocks.2.mlp.hidden"]: unit}
    expected = forward(gpt2.module, {"input_ids": token_ids()}, hooks)
    for edits in ([first, second], [second, first]):  # given in any order
        torch.testing.assert_close(gpt2.run(token_ids(), edits=edits).logits, expected, rtol=1e-5, atol=1e-5)


def test_sources_are_runs_without_edits(gpt2: Network) -> None:
    sites = ["blocks.0.attn.z", "blocks.1.mlp.out"]
    edits = [Scale("embed", factor=2.0), Ablate(sites[1], how="mean")]
    plain = gpt2.run(token_ids(), keep=sites)
    run = gpt2.run(token_ids(), edits=edits, keep=sites)
    torch.testing.assert_close(run[sites[1]][0, 0], plain[sites[1]].flatten(0, 1).mean(0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(run[sites[0]], plain[sites[0]])


def test_a_pattern_edits_every_site_it_selects(gpt2: Network) -> None:
    at = places("gpt2", 3)
    for pattern, blocks in [
        ("blocks.*.mlp.out", (0, 1, 2)),
        ("blocks.0-1.mlp.out", (0, 1)),
        ("blocks.2.mlp.out", (2,)),
    ]:
        hooks = {at[f"blocks.{b}.mlp.out"]: torch.zeros_like for b in blocks}
        expected = forward(gpt2.module, {"input_ids": token_ids()}, hooks)
        run = gpt2.run(token_ids(), edits=Ablate(pattern))
        torch.testing.assert_close(run.logits, expected, rtol=1e-5, atol=1e-5)
        assert [x.site for x in run.ledger] == [f"blocks.{b}.mlp.out" for b in blocks]


# -- gains, norms, modules --


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_a_contribution_is_written_as_it_enters_the_stream(opened: Opener, part: str) -> None:
    """Granite multiplies each contribution by 0.22; sites show and take it multiplied."""
    net, site = opened("granite"), f"blocks.1.{part}.out"
    place = (f"model.layers.1.{'self_attn' if part == 'attn' else 'mlp'}", "out")
    raw = watch(net.module, {"input_ids": token_ids()}, [place])[place]
    run = net.run(token_ids(), keep=site)
    torch.testing.assert_close(run[site], 0.22 * raw, rtol=1e-5, atol=1e-6)
    run = net.run(token_ids(), edits=Add(site, 4, vector=WEIGHTS))

    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 4] += WEIGHTS / 0.22
        return value

    expected = forward(net.module, {"input_ids": token_ids()}, {place: add})
    torch.testing.assert_close(run.logits, expected, rtol=1e-4, atol=1e-5)


def test_the_middle_of_the_stream_is_read_by_the_second_sub_layer_and_by_the_rest(gpt2: Network) -> None:
    """Writing resid_mid is the same as writing attn.out with the difference, for everything after it."""
    plain = gpt2.run(token_ids(), keep=["blocks.1.resid_mid", "blocks.1.attn.out", "blocks.1.resid_post"])
    run = gpt2.run(token_ids(), edits=Add("blocks.1.resid_mid", 4, vector=WEIGHTS), keep="blocks.1.resid_post")
    at = places("gpt2", 3)["blocks.1.attn.out"]

    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 4] += WEIGHTS
        return value

    torch.testing.assert_close(
        run.logits, forward(gpt2.module, {"input_ids": token_ids()}, {at: add}), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(run["blocks.1.resid_post"][:, :4], plain["blocks.1.resid_post"][:, :4])


@pytest.mark.parametrize(
    ("kind", "site", "place"),
    [
        ("gpt2", "module:transformer.h.1.mlp.c_fc.out[3]", ("transformer.h.1.mlp.c_fc", "out")),
        ("pictures", "module:stages.0.second.out[2]", ("stages.0.second", "out")),
        ("pictures", "module:stages.1.norm.in", ("stages.1.norm", "in")),
        ("perceptron", "module:up.out[3]", ("up", "out")),
    ],
)
def test_any_module_can_be_edited(opened: Opener, kind: str, site: str, place: tuple[str, str]) -> None:
    net, kwargs = opened(kind), example(kind)

    def scale(value: Tensor) -> Tensor:
        value = value.clone()
        axis = 1 if kind == "pictures" else -1
        index = Site.parse(site).index or range(value.shape[axis])
        for part in index:
            value.select(axis, part).mul_(-2)
        return value

    expected = forward(net.module, kwargs, {place: scale})
    run = net.run(kwargs, edits=Scale(site, factor=-2.0))
    assert torch.equal(run.logits, expected)
    assert not torch.equal(expected, net.run(kwargs).logits)


# -- bad input --


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Ablate("blocks.1.attn.z", 9), "positions=.9,"),
        (Ablate("blocks.1.attn.z", -10), "row of 9 tokens"),
        (Ablate("blocks.1.attn.z", Where(rows=(3,))), "batch of 3"),
        (Ablate("blocks.1.attn.z", Where(rows=(-1,))), "batch of 3"),
        (Custom("blocks.1.attn.z", fn=lambda value: None), "return a tensor"),
        (Custom("blocks.1.attn.z", fn=lambda value: value[:1, :2]), "broadcasts"),
    ],
    ids=["position", "negative position", "row", "negative row", "returns nothing", "returns another shape"],
)
def test_what_does_not_fit_is_said(gpt2: Network, edit: Edit, message: str) -> None:
    with pytest.raises((BadInput, EditMissed), match=message):
        gpt2.run(token_ids(), edits=edit)


def test_a_position_that_a_row_does_not_have_is_not_counted_there(gpt2: Network) -> None:
    ragged = Inputs(((5, 6, 7, 8, 9), (10, 11, 12)))
    run = gpt2.run(ragged, edits=Ablate("blocks.1.mlp.out", 4), keep="blocks.1.mlp.out")
    assert bool((run["blocks.1.mlp.out"][0, 4] == 0).all())
    assert run.ledger[0].rows == 1  # padding is no token, so the second row was not reached


def test_an_unknown_group_names_those_that_exist(gpt2: Network) -> None:
    with pytest.raises(UnknownName, match=r"nmae.*name"):
        gpt2.run(inputs_of(), edits=Ablate("blocks.1.attn.z", "nmae"))


def test_positions_at_a_site_without_positions(opened: Opener) -> None:
    with pytest.raises(BadInput, match="positions"):
        opened("pictures").run(example("pictures"), edits=Ablate("module:head.out", 3))


# -- edits as data --


def test_edits_do_the_same_after_a_round_trip_through_json(gpt2: Network) -> None:
    edits = [
        Patch("blocks.1.attn.z[2]", "name", source="other"),
        Ablate("blocks.0.mlp.out", (1, -1), how="noise", seed=3),
        Add("blocks.1.resid_post", Where(positions=(4,), rows=(0, 1)), vector=WEIGHTS, scale=0.5),
        Project("blocks.2.resid_pre", directions=BASIS),
    ]
    again = edits_from_json(edits_to_json(edits))
    assert again == edits
    first, second = (gpt2.run(inputs_of(), edits=e, sources={"other": inputs_of(9)}).logits for e in (edits, again))
    assert torch.equal(first, second)
    assert not torch.equal(first, gpt2.run(inputs_of()).logits)
