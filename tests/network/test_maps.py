"""Edits by position and by region on maps and patch tokens, against plain indexing of what a forward hook sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from openwork import network
from openwork.edit import (
    Ablate,
    Add,
    Edit,
    KnockOut,
    Patch,
    Project,
    Scale,
    Set,
    Steer,
    SwapAlong,
    Twin,
    edits_from_json,
    edits_to_json,
)
from openwork.errors import BadInput, EditMissed, UnknownName
from openwork.network import Network
from openwork.network.apply import derangement
from openwork.site import Where
from openwork.task import Tensors

from .seeing import NEED_EXAMPLE, images, see

SITES = {"cnn": "module:stages.0.second.out", "last": "module:norm.out", "vit": "blocks.0.resid_post"}
ROWS = 3
VECTOR = torch.linspace(-1, 1, 8)


@cache
def opened(kind: str) -> Network:
    given = {"pixels": images(last=kind == "last")} if kind in NEED_EXAMPLE else None
    return network.open(see(kind), example=given, name=kind)


def inputs(kind: str, seed: int = 0) -> Tensor:
    return images(ROWS, last=kind == "last", seed=seed)


def rows_first(value: Tensor, kind: str) -> Tensor:
    """(image, position, channel)."""
    if kind == "vit":
        return value
    return value.flatten(1, 2) if kind == "last" else value.flatten(2).transpose(1, 2)


def vector(kind: str) -> Tensor:
    return VECTOR if kind != "vit" else torch.linspace(-1, 1, 16)


def expected(kind: str, edit: Callable[[Tensor, Tensor], Tensor], positions: list[int]) -> Tensor:
    """What `edit` makes of the rows at these positions: (here, there) -> new, each (image, position, channel)."""
    net, site = opened(kind), SITES[kind]
    here = rows_first(net.run(inputs(kind), keep=site)[site], kind)
    there = rows_first(net.run(inputs(kind, 1), keep=site)[site], kind)
    out = here.clone()
    out[:, positions] = edit(here, there).expand_as(here)[:, positions]
    return out


def unit(kind: str) -> Tensor:
    return vector(kind) / vector(kind).norm()


def along(value: Tensor, kind: str) -> Tensor:
    return (value @ unit(kind))[..., None] * unit(kind)


def turned(value: Tensor, kind: str) -> Tensor:
    new = value + 2 * vector(kind)
    return new * value.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True)


Case = tuple[Callable[[str, str, Where], Edit], Callable[[Tensor, Tensor, str], Tensor]]
CASES: dict[str, Case] = {
    "patch": (lambda s, k, w: Patch(s, w), lambda h, t, k: t),
    "zero": (lambda s, k, w: Ablate(s, w), lambda h, t, k: torch.zeros_like(h)),
    "mean": (lambda s, k, w: Ablate(s, w, "mean"), lambda h, t, k: h.mean((0, 1))),
    "resample": (lambda s, k, w: Ablate(s, w, "resample"), lambda h, t, k: h[derangement(ROWS, 0)]),
    "set": (lambda s, k, w: Set(s, w, 0.25), lambda h, t, k: torch.full_like(h, 0.25)),
    "set a vector": (lambda s, k, w: Set(s, w, vector(k)), lambda h, t, k: vector(k)),
    "add": (lambda s, k, w: Add(s, w, vector(k), 2.0), lambda h, t, k: h + 2 * vector(k)),
    "scale": (lambda s, k, w: Scale(s, w, 3.0), lambda h, t, k: 3 * h),
    "project": (lambda s, k, w: Project(s, w, vector(k)), lambda h, t, k: h - along(h, k)),
    "turn": (lambda s, k, w: Steer(s, w, vector(k), 2.0), lambda h, t, k: turned(h, k)),
    "clamp": (
        lambda s, k, w: Steer(s, w, vector(k), 2.0, "clamp"),
        lambda h, t, k: h - along(h, k) + 2 * unit(k),
    ),
    "swap": (lambda s, k, w: SwapAlong(s, w, vector(k)), lambda h, t, k: h + along(t - h, k)),
}


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("case", CASES)
def test_an_edit_at_positions_is_plain_indexing(kind: str, case: str) -> None:
    net, site = opened(kind), SITES[kind]
    make, plain = CASES[case]
    count = 17 if kind == "vit" else 64 if kind == "cnn" else 1024
    edit = make(site, kind, Where((2, 9, -1)))
    run = net.run(inputs(kind), keep=site, edits=edit, sources={"clean": inputs(kind, 1)})
    want = expected(kind, lambda here, there: plain(here, there, kind), [2, 9, count - 1])
    torch.testing.assert_close(rows_first(run[site], kind), want, rtol=1e-5, atol=1e-5)
    assert [ledger.rows for ledger in run.ledger] == [ROWS]
    assert edits_from_json(edits_to_json([edit])) == [edit]


@pytest.mark.parametrize("kind", ["cnn", "last"])
def test_noise_at_positions_has_the_statistics_of_each_channel(kind: str) -> None:
    net, site = opened(kind), SITES[kind]
    plain = rows_first(net.run(inputs(kind), keep=site)[site], kind)
    run = net.run(inputs(kind), keep=site, edits=Ablate(site, None, "noise"))
    noisy = rows_first(run[site], kind)
    torch.testing.assert_close(noisy.mean((0, 1)), plain.mean((0, 1)), rtol=0, atol=float(plain.std()))
    at_one = rows_first(net.run(inputs(kind), keep=site, edits=Ablate(site, 3, "noise"))[site], kind)
    changed = (at_one != plain).any(2)
    assert bool(changed[:, 3].all())
    assert int(changed.sum()) == ROWS


@pytest.mark.parametrize("kind", SITES)
def test_a_twin_changes_the_same_places_by_as_much(kind: str) -> None:
    net, site = opened(kind), SITES[kind]
    plain = rows_first(net.run(inputs(kind), keep=site)[site], kind)
    edit = Ablate(site, (1, 4))
    changes = [
        rows_first(net.run(inputs(kind), keep=site, edits=e)[site], kind) - plain for e in (edit, Twin(of=edit, seed=3))
    ]
    torch.testing.assert_close(changes[0].norm(dim=2), changes[1].norm(dim=2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(changes[0], changes[1])


def test_an_index_selects_channels_and_a_position_places() -> None:
    net, site = opened("cnn"), SITES["cnn"]
    plain = net.run(inputs("cnn"), keep=site)[site]
    run = net.run(inputs("cnn"), keep=site, edits=Ablate(f"{site}[2,5]", Where((9,), rows=1)))
    want = plain.clone()
    want[1, [2, 5], 1, 1] = 0
    torch.testing.assert_close(run[site], want, rtol=0, atol=0)
    assert run.ledger[0].rows == 1


def test_a_patch_may_read_elsewhere() -> None:
    net, site = opened("cnn"), SITES["cnn"]
    run = net.run(
        inputs("cnn"), keep=site, edits=Patch(site, (0, 8), source_where=(63, 1)), sources={"clean": inputs("cnn", 1)}
    )
    there = net.run(inputs("cnn", 1), keep=site)[site]
    torch.testing.assert_close(run[site][:, :, 0, 0], there[:, :, 7, 7], rtol=0, atol=0)
    torch.testing.assert_close(run[site][:, :, 1, 0], there[:, :, 0, 1], rtol=0, atol=0)


def test_a_position_that_no_place_has_is_an_error() -> None:
    with pytest.raises(EditMissed, match="no row"):
        opened("cnn").run(inputs("cnn"), edits=Ablate(SITES["cnn"], 64))


# -- regions: one part of the image, at every depth --


def corner(rows: int = ROWS) -> Tensor:
    mask = torch.zeros(rows, 32, 32, dtype=torch.bool)
    mask[:, :16, :16] = True
    mask[1] = False  # of the second image nothing
    return mask


def test_a_region_names_the_right_places_at_every_depth() -> None:
    net = opened("cnn")
    given = Tensors({"pixels": inputs("cnn")}, {"corner": corner()})
    for site in ("module:c1.out", "module:pool.out", SITES["cnn"]):
        run = net.run(given, keep=site, edits=Ablate(site, "corner"))
        plain = net.run(given, keep=site)[site]
        grid = net.grid(site)
        held = torch.zeros(len(grid), dtype=torch.bool)
        held[grid.positions(corner()[0])] = True
        changed = torch.stack([held, torch.zeros_like(held), held]).reshape(ROWS, 1, grid.height, grid.width)
        torch.testing.assert_close(run[site], torch.where(changed, torch.zeros(()), plain), rtol=0, atol=0)
        assert run.ledger[0].rows == 2
        assert 0.2 < held.float().mean() < 0.3


def test_a_region_names_the_patch_tokens_of_a_vit() -> None:
    net, site = opened("vit"), SITES["vit"]
    given = Tensors({"pixel_values": inputs("vit")}, {"corner": corner()})
    run = net.run(given, keep=site, edits=Ablate(site, "corner"))
    zeroed = (run[site] == 0).all(2)
    assert torch.nonzero(zeroed[0]).flatten().tolist() == [1, 2, 5, 6]
    assert not bool(zeroed[1].any())


def test_attention_from_a_region_to_a_region_is_cut() -> None:
    net = opened("vit")
    given = Tensors({"pixel_values": inputs("vit")}, {"corner": corner()})
    pattern = "blocks.0.attn.pattern"
    edit = KnockOut("blocks.0.attn", 0, keys="corner")
    cut = net.run(given, keep=pattern, edits=edit)[pattern]
    plain = net.run(given, keep=pattern)[pattern]
    assert bool((cut[0, :, 0, [1, 2, 5, 6]] == 0).all())
    torch.testing.assert_close(cut[0, :, 1:], plain[0, :, 1:])
    torch.testing.assert_close(cut[1], plain[1])
    left = plain[0, :, 0].clone()
    left[:, [1, 2, 5, 6]] = 0
    torch.testing.assert_close(cut[0, :, 0], left / left.sum(-1, keepdim=True))


def test_an_empty_region_is_an_edit_that_missed() -> None:
    given = Tensors({"pixels": inputs("cnn")}, {"nothing": torch.zeros(ROWS, 32, 32, dtype=torch.bool)})
    with pytest.raises(EditMissed):
        opened("cnn").run(given, edits=Ablate(SITES["cnn"], "nothing"))


def test_an_unknown_region_names_those_that_exist() -> None:
    given = Tensors({"pixels": inputs("cnn")}, {"corner": corner()})
    with pytest.raises(UnknownName, match="corner"):
        opened("cnn").run(given, edits=Ablate(SITES["cnn"], "croner"))


def test_regions_of_another_size_than_the_images_are_refused() -> None:
    given = Tensors({"pixels": inputs("cnn")}, {"corner": torch.zeros(ROWS, 16, 16, dtype=torch.bool)})
    with pytest.raises(BadInput, match="size of the images"):
        opened("cnn").run(given)


def test_regions_are_masks_of_every_example() -> None:
    with pytest.raises(BadInput, match="bool"):
        Tensors({"pixels": inputs("cnn")}, {"corner": torch.zeros(2, 32, 32, dtype=torch.bool)})


def test_regions_follow_their_rows() -> None:
    given = Tensors({"pixels": inputs("cnn")}, {"corner": corner()}).take([1, 0])
    assert [bool(mask.any()) for mask in given.regions["corner"]] == [False, True]
