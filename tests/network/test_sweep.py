"""Sweeps against one full forward pass a cell: every value, on every kind of anatomy, and what is computed for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from openwork.edit import Ablate, Add, Custom, Edit, KnockOut, Patch, Scale, Set, SwapAlong, Twin
from openwork.errors import BadInput, CorruptFile, EditMissed, Misaligned, OutputOccupied, UnknownName
from openwork.network import Network, measure, sweep
from openwork.network.measure import suffixes
from openwork.network.replay.certificate import Suffixes
from openwork.task import LOGIT_DIFFERENCE, Inputs, Metric, Task

from .oracle import forward, hooks_left, places, watch
from .tiny import HEADS, LAYERS, token_ids

Opener = Callable[[str], Network]
REPLAYED = ("gpt2", "llama", "granite", "gemma2", "mistral", "gpt-oss", "neox", "falcon", "attention-only")
WHOLE = ("bloom", "bert")
LENGTH = 9


def task_of(rows: int = 3, length: int = LENGTH, changed: tuple[int, ...] | None = None, **more: object) -> Task:
    """Random clean rows, and corrupted ones that differ at some positions."""
    clean, other = token_ids(rows, length), token_ids(rows, length, seed=1)
    corrupted = clean.clone()
    for position in range(length) if changed is None else changed:
        corrupted[:, position] = torch.where(other == clean, (clean + 1) % 50, other)[:, position]
    answers = {"right": list(range(1, rows + 1)), "wrong": list(range(11, rows + 11))}
    return Task.from_tokens(clean=clean, corrupted=corrupted, **answers, **more)  # type: ignore[arg-type]


def by_full_passes(net: Network, task: Task, edits: list[Edit], base: str = "corrupted") -> np.ndarray:
    """(example,) the metric of one full pass with the edits."""
    batch = task.batch(range(len(task)))
    sources = {"clean": batch.clean, "corrupted": batch.corrupted}
    logits = net.run(getattr(batch, base), edits=edits, sources=sources).logits
    return batch.measure(task.metric, logits).double().numpy()


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-5)


# -- the numbers --


@pytest.mark.parametrize("kind", [*REPLAYED, *WHOLE])
@pytest.mark.parametrize("site", ["resid_pre", "attn.z", "attn.v", "attn.q", "mlp.out", "resid_post"])
def test_every_cell_is_that_of_a_full_pass(opened: Opener, kind: str, site: str) -> None:
    net = opened(kind)
    if f"blocks.0.{site}" not in net.sites:
        pytest.skip(f"{kind} has no {site}")
    task = task_of(at=[8, 7, 8], changed=(2, 5))
    over = ("site", "head") if site == "attn.z" else ("site", "position")
    table = sweep(net, task, Patch(f"blocks.*.{site}"), over=over)
    assert table.dims == (*over, "example")
    ways = set(table.how.values.ravel().tolist()) - {"same"}
    assert ways <= ({"positions"} if kind in REPLAYED else {"layers"})
    for place in [p for p in np.ndindex(*table.shape[:-1]) if sum(p) % 3 == 0]:
        cell = table[place]
        name = str(cell.coords["site"].values)
        part = f"[{int(cell.coords['head'])}]" if site == "attn.z" else ""
        at = None if part else int(cell.coords["position"])
        close(cell.values, by_full_passes(net, task, [Patch(name + part, at)]))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_residual_patches_are_those_of_hooks_by_hand(opened: Opener, kind: str) -> None:
    net, task = opened(kind), task_of()
    clean, corrupted = (torch.tensor(x.ids) for x in (task.clean, task.corrupted))
    table = sweep(net, task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    where = places(kind, LAYERS)["blocks.1.resid_pre"]
    source = watch(net.module, {"input_ids": clean}, [where])[where]
    for position in (0, 4, LENGTH - 1):

        def write(value: Tensor, position: int = position) -> Tensor:
            return torch.cat((value[:, :position], source[:, [position]], value[:, position + 1 :]), 1)

        last = forward(net.module, {"input_ids": corrupted}, {where: write})[:, -1]
        rows = torch.arange(3)
        want = last[rows, torch.tensor(task.answer)] - last[rows, torch.tensor(task.wrong)]
        close(table.sel(site="blocks.1.resid_pre", position=position).values, want.numpy())


EDITS: dict[str, Edit] = {
    "zero": Ablate("blocks.*.mlp.out"),
    "mean": Ablate("blocks.*.attn.z", how="mean"),
    "resample": Ablate("blocks.*.mlp.hidden", how="resample", seed=3),
    "noise": Ablate("blocks.*.attn.out", how="noise"),
    "set": Set("blocks.*.attn.k", value=0.3),
    "add": Add("blocks.*.resid_pre", vector=[0.1] * 32, scale=2.0),
    "scale": Scale("blocks.*.norm1.scale", factor=1.5),
    "swap": SwapAlong("blocks.*.resid_mid", directions=[[1.0] * 32]),
    "function": Custom("blocks.*.mlp.in", fn=lambda value: value.flip(-1)),
    "twin": Twin(of=Patch("blocks.*.resid_pre")),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_that_writes_values_is_replayed(gpt2: Network, name: str) -> None:
    task, edit = task_of(), EDITS[name]
    table = sweep(gpt2, task, edit, over=("site", "position"))
    assert set(table.how.values.ravel().tolist()) <= {"positions", "same"}
    from dataclasses import replace

    for site, position in ((0, 0), (1, 4), (2, LENGTH - 1)):
        where = replace(edit.where, positions=(position,))
        full = replace(edit, site=str(table.site.values[site]), where=where)
        close(table[site, position].values, by_full_passes(gpt2, task, [full], str(table.attrs["edited"])))


def test_cut_attention_edges_enter_behind_the_layers_before(gpt2: Network) -> None:
    task = task_of()
    table = sweep(gpt2, task, KnockOut("blocks.*.attn", "last", keys=(0, 3)), over=("site", "head"))
    assert set(table.how.values.ravel().tolist()) == {"layers"}
    edit = KnockOut("blocks.2.attn.scores[1]", "last", keys=(0, 3))
    close(table[2, 1].values, by_full_passes(gpt2, task, [edit], "clean"))


def test_cells_of_several_edits(gpt2: Network) -> None:
    task = task_of()
    cells: list[list[Edit]] = [
        [Patch("blocks.0.attn.z[1]", 2), Patch("blocks.2.mlp.out", (4, 8))],
        [Patch("blocks.1.attn.z[1]", -1), Patch("blocks.1.mlp.hidden", -1)],
        [Ablate("blocks.*.mlp.out", how="mean")],
        [Patch("blocks.0.resid_pre", 1), Scale("blocks.1.attn.out", factor=2.0)],
    ]
    found = measure(gpt2, task.batch(range(3)), task.metric, cells, base="corrupted")
    assert found.how == ["positions", "positions", "positions", "layers"]
    for cell, values in zip(cells, found.values, strict=True):
        close(values, by_full_passes(gpt2, task, cell))


def test_cells_that_are_replayed_beside_cells_that_are_not(gpt2: Network) -> None:
    task = task_of()
    cells: list[list[Edit]] = [[Ablate("blocks.1.attn.pattern", how="mean")], [Ablate("blocks.1.mlp.out", 2)]]
    found = measure(gpt2, task.batch(range(3)), task.metric, cells)
    assert found.how == ["layers", "positions"]
    for cell, values in zip(cells, found.values, strict=True):
        close(values, by_full_passes(gpt2, task, cell, "clean"))


def test_rows_of_unequal_length(opened: Opener) -> None:
    net = opened("llama")
    clean, corrupted = (((5, 6, 7, 8, 9), (10, 11, 12)), ((5, 16, 7, 8, 9), (10, 21, 12)))
    task = Task.from_tokens(clean=clean, corrupted=corrupted, right=[1, 2], wrong=[3, 4])
    table = sweep(net, task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    assert np.isnan(table[:, 3:, 1]).all()
    assert np.isfinite(table[:, 3:, 0]).all()
    for position in range(3):
        close(table[1, position].values, by_full_passes(net, task, [Patch("blocks.1.resid_pre", position)]))


@pytest.mark.parametrize("kind", ["vit", "pictures"])
def test_pictures_enter_behind_the_layers_before(opened: Opener, kind: str) -> None:
    net = opened(kind)
    generator = torch.Generator().manual_seed(0)
    size = 16 if kind == "vit" else 8
    argument = "pixel_values" if kind == "vit" else "pixels"
    clean, corrupted = (torch.randn(3, 3, size, size, generator=generator) for _ in range(2))
    task = Task.from_tensors(clean, corrupted, right=[0, 1, 0], wrong=[1, 0, 1], argument=argument)
    name = next(n for n in reversed(net.sites) if n.endswith("resid_post")) if kind == "vit" else None
    name = name or next(n for n in net.map.modules if n.endswith(".out") and net.map.info(n).axes[1] == "channel")
    axis = "channel"
    table = sweep(net, task, Patch(name), over=("site", axis))
    assert set(table.how.values.ravel().tolist()) <= {"layers", "same"}
    for part in (0, 2):
        sources = {"clean": {argument: clean}}
        logits = net.run({argument: corrupted}, edits=Patch(f"{name}[{part}]"), sources=sources).logits
        want = task.batch(range(3)).measure(task.metric, logits)
        close(table[0, part].values, want.numpy())


def test_half_precision_is_replayed_to_its_rounding(opened: Opener) -> None:
    from openwork import network

    from .tiny import build

    net = network.open(build("llama").to(torch.bfloat16))
    task = task_of()
    table = sweep(net, task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    assert set(table.how.values.ravel().tolist()) == {"positions"}
    want = by_full_passes(net, task, [Patch("blocks.1.resid_pre", 3)])
    np.testing.assert_allclose(table[1, 3].values, want, atol=0.1)


# -- what is computed --


def test_sites_of_one_tensor_are_run_once(gpt2: Network) -> None:
    task = task_of()
    once = sweep(gpt2, task, Patch("blocks.1.resid_pre"), over=("site", "position"))
    both = sweep(gpt2, task, Patch("blocks.0|1.resid_pre|resid_post"), over=("site", "position"))
    twins = both.sel(site=["blocks.0.resid_post", "blocks.1.resid_pre"])
    assert np.array_equal(twins[0], twins[1])
    assert once.attrs["replayed tokens"] < both.attrs["replayed tokens"]
    three = sweep(gpt2, task, Patch("blocks.0|1|2.resid_pre"), over=("site", "position")).attrs["replayed tokens"]
    assert both.attrs["replayed tokens"] == three  # four sites, of which two are one tensor


def test_what_changes_nothing_is_not_run_and_has_no_effect(gpt2: Network) -> None:
    task = task_of(changed=(4,))
    table = sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    assert (table.how[:, :4] == "same").all()
    assert (table.effect[:, :4] == 0).all()
    assert (table.p[:, :4] == 1).all()
    assert np.array_equal(table[0, 0], table.base)
    assert (table.how[0] == "same").sum() == LENGTH - 1


def test_few_tokens_are_computed(gpt2: Network) -> None:
    table = sweep(gpt2, task_of(), Patch("blocks.*.resid_pre"), over=("site", "position"))
    ahead = 3 * sum(range(1, LENGTH + 1))  # three rows, from each position to the last
    first = 3 * LENGTH + ahead  # the changed tokens up to the attention, then all that see them
    second = 2 * ahead  # those of the first block go on, as many join
    last = 2 * (ahead - 3 * LENGTH) + 3 * (LENGTH - 1) + 3 * LENGTH * LAYERS  # keys and values; and the last position
    assert table.attrs["replayed tokens"] == first + second + last


def test_windows_narrow_what_is_computed(opened: Opener) -> None:
    task = task_of(length=16)
    wide = sweep(opened("llama"), task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    slim = sweep(opened("mistral"), task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    assert slim.attrs["replayed tokens"] < 0.8 * wide.attrs["replayed tokens"]
    for position in (0, 3, 9, 15):
        want = by_full_passes(opened("mistral"), task, [Patch("blocks.1.resid_pre", position)])
        close(slim[1, position].values, want)


@pytest.mark.parametrize("memory", ["200KiB", "1MiB", None])
def test_the_budget_changes_no_number(gpt2: Network, memory: str | None) -> None:
    task = task_of()
    table = sweep(gpt2, task, Patch("blocks.*.attn.z"), over=("site", "head", "position"), memory=memory)
    close(table.values, sweep(gpt2, task, Patch("blocks.*.attn.z"), over=("site", "head", "position")).values)


def test_nothing_is_left_on_the_module(gpt2: Network) -> None:
    def broken(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(gpt2, task_of(), Patch("blocks.*.resid_pre"), over=("site", "position"), tick=broken)
    assert hooks_left(gpt2.module) == []
    assert not any("forward" in vars(module) for module in gpt2.module.modules())


def test_the_certificate_says_why_not(opened: Opener) -> None:
    assert isinstance(suffixes(opened("gpt2")), Suffixes)
    assert suffixes(opened("bert")) == "its attention is not causal"
    table = sweep(opened("bert"), task_of(), Patch("blocks.*.resid_pre"))
    assert table.attrs["not replayed because"] == "its attention is not causal"


# -- beside the numbers --


def test_intervals_and_base_values_are_those_of_the_examples(gpt2: Network) -> None:
    task = task_of(rows=6)
    table = sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("site", "position"))
    change = table.values - table.base.values
    close(table.effect.values, change.mean(-1))
    from scipy import stats

    want = stats.ttest_1samp(change[1, 2], 0).confidence_interval(0.95)
    close(np.array([table.low[1, 2], table.high[1, 2]]), np.array([want.low, want.high]))
    batch = task.batch(range(6))
    for name in ("clean", "corrupted"):
        want = batch.measure(task.metric, gpt2.run(getattr(batch, name)).logits)
        close(table.coords[name].values, want.numpy())
    assert np.array_equal(table.base, table.corrupted)


def test_controls_are_changes_of_the_same_size(gpt2: Network) -> None:
    task = task_of()
    table = sweep(gpt2, task, Patch("blocks.1.resid_pre"), over="position", controls=4)
    batch = task.batch(range(3))
    run = gpt2.run(batch.clean, keep="blocks.1.resid_pre")["blocks.1.resid_pre"]
    base = gpt2.run(batch.corrupted, keep="blocks.1.resid_pre")["blocks.1.resid_pre"]
    twin = Twin(of=Patch("blocks.1.resid_pre", 3), seed=2)
    written = gpt2.run(batch.corrupted, keep="blocks.1.resid_pre", edits=twin, sources={"clean": batch.clean})
    change = written["blocks.1.resid_pre"] - base
    assert not change[:, [0, 1, 2, 4, 5, 6, 7, 8]].any()
    torch.testing.assert_close(change[:, 3].norm(dim=-1), (run - base)[:, 3].norm(dim=-1))
    means = [by_full_passes(gpt2, task, [Twin(of=Patch("blocks.1.resid_pre", 3), seed=s)]).mean() for s in range(4)]
    close(table.control[3].values, np.array(np.mean(means) - table.base.values.mean()))
    assert set(np.round(table.control_p.values * 5).astype(int).tolist()) <= {1, 2, 3, 4, 5}


def test_groups_and_axes(gpt2: Network) -> None:
    groups = {"subject": [[1, 2], [3], [4, 5]]}
    task = task_of(groups=groups)
    table = sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("group", "site"))
    assert table.dims == ("group", "site", "example")
    assert table.coords["group"].values.tolist() == ["subject", "first", "last"]
    close(table[0, 1].values, by_full_passes(gpt2, task, [Patch("blocks.1.resid_pre", "subject")]))
    units = sweep(gpt2, task, Patch("blocks.1.mlp.hidden[3-5]"), over=("unit",))
    assert units.coords["unit"].values.tolist() == [3, 4, 5]
    assert units.to_dataframe().shape[0] == 9


def test_a_split_uses_its_rows(gpt2: Network) -> None:
    task = task_of(rows=6, held_out=[1, 4])
    assert sweep(gpt2, task, Patch("blocks.*.resid_pre"), split="held-out").shape == (LAYERS, 2)
    assert sweep(gpt2, task, Patch("blocks.*.resid_pre"), split="find").attrs["split"] == "find"


# -- going on --


def test_an_interrupted_sweep_goes_on(gpt2: Network, tmp_path: Path) -> None:
    task, seen = task_of(), []

    def stop(share: float) -> None:
        seen.append(share)
        if share > 0.4:
            raise KeyboardInterrupt

    how = {"over": ("site", "position"), "to": tmp_path / "sweep", "memory": "200KiB"}
    with pytest.raises(KeyboardInterrupt):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), tick=stop, **how)
    again: list[float] = []
    table = sweep(gpt2, task, Patch("blocks.*.resid_pre"), tick=again.append, **how)
    assert 0 < len(again) < 3 * LAYERS * LENGTH
    close(table.values, sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("site", "position")).values)
    done: list[float] = []
    sweep(gpt2, task, Patch("blocks.*.resid_pre"), tick=done.append, **how)
    assert done == []


def test_a_folder_with_something_else_is_left_alone(gpt2: Network, tmp_path: Path) -> None:
    task = task_of()
    sweep(gpt2, task, Patch("blocks.*.resid_pre"), to=tmp_path / "a")
    with pytest.raises(OutputOccupied, match="another measurement"):
        sweep(gpt2, task, Patch("blocks.*.mlp.out"), to=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(OutputOccupied, match="no measurement"):
        sweep(gpt2, task, Patch("blocks.*.mlp.out"), to=tmp_path / "b")
    (tmp_path / "a" / "values.npz").write_bytes(b"PK damaged")
    with pytest.raises(CorruptFile):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), to=tmp_path / "a")
    with pytest.raises(BadInput, match="edits that are data"):
        sweep(gpt2, task, Custom("blocks.*.mlp.in", fn=lambda x: x), to=tmp_path / "c")


# -- bad input --


def test_misaligned_pairs(gpt2: Network) -> None:
    with pytest.raises(Misaligned, match="row 1 has 3 and 2 tokens"):
        Task.from_tokens(clean=[[1, 2], [1, 2, 3]], corrupted=[[1, 2], [1, 2]], right=[1, 2], wrong=[3, 4])
    uneven = Task("uneven", Inputs(((1, 2, 3), (4, 5, 6))), Inputs(((1, 2), (4, 5, 6))), (1, 2), (3, 4), (1, 2),
                  LOGIT_DIFFERENCE, 0.0, frozenset({1}))  # fmt: skip
    with pytest.raises(Misaligned, match="row 0 has 3 and 2 tokens"):
        sweep(gpt2, uneven, Patch("blocks.*.resid_pre"))


def test_axes_that_do_not_fit(gpt2: Network) -> None:
    task = task_of()
    with pytest.raises(UnknownName, match="axis to sweep over"):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("site", "posiiton"))
    with pytest.raises(BadInput, match="'site' among the axes"):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), over="position")
    with pytest.raises(BadInput, match="whose parts are heads"):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("site", "head"))
    with pytest.raises(BadInput, match="different axes"):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"), over=("position", "group"))


def test_edits_that_reach_nothing(gpt2: Network) -> None:
    with pytest.raises(EditMissed, match="reaches no token"):
        measure(gpt2, task_of().batch(range(3)), LOGIT_DIFFERENCE, [[Patch("blocks.0.resid_pre", 30)]])
    with pytest.raises(BadInput, match="at least one edit"):
        measure(gpt2, task_of().batch(range(3)), LOGIT_DIFFERENCE, [[]])
    with pytest.raises(UnknownName, match="source"):
        sweep(gpt2, task_of(), Patch("blocks.*.resid_pre", source="cleen"))


def test_metrics_that_are_none(gpt2: Network) -> None:
    shape = Metric("whole row", "logits", lambda logits, answer, wrong: logits)
    with pytest.raises(BadInput, match=r"expected metric 'whole row' to give shape \(3,\)"):
        sweep(gpt2, task_of(metric=shape), Patch("blocks.*.resid_pre"))
    nan = Metric("root", "nats", lambda logits, answer, wrong: logits[:, 0] * float("nan"))
    with pytest.raises(BadInput, match="expected finite values of 'root'"):
        sweep(gpt2, task_of(metric=nan), Patch("blocks.*.resid_pre"))


def test_a_budget_below_one_cell(opened: Opener) -> None:
    for kind in ("gpt2", "bert"):
        with pytest.raises(BadInput, match="memory budget of at least"):
            sweep(opened(kind), task_of(), Patch("blocks.*.resid_pre"), memory="1KiB")


def test_answers_beyond_the_vocabulary_and_the_row(gpt2: Network) -> None:
    clean = token_ids(2)
    task = Task.from_tokens(clean=clean, corrupted=clean.flip(0), right=[1, 99], wrong=[2, 3])
    with pytest.raises(BadInput, match="answers among"):
        sweep(gpt2, task, Patch("blocks.*.resid_pre"))
    with pytest.raises(BadInput, match="row 0 is read at 9"):
        Task.from_tokens(clean=clean, corrupted=clean, right=[1, 2], wrong=[2, 3], at=[9, 8])
    with pytest.raises(BadInput, match="rows of token ids"):
        Task.from_tokens(clean=clean.float(), corrupted=clean, right=[1, 2], wrong=[2, 3])
    with pytest.raises(BadInput, match="inputs of one shape"):
        Task.from_tensors(torch.zeros(2, 3), torch.zeros(3, 3), right=[1, 2], wrong=[2, 3])


def test_twins_are_data() -> None:
    from openwork.edit import edit_from_json

    twin = Twin(of=Patch("blocks.1.attn.z[2]", 3), seed=5)
    assert edit_from_json(twin.to_json()) == twin
    assert str(twin.site) == "blocks.1.attn.z[2]"
    with pytest.raises(BadInput, match="expected of= as an edit"):
        Twin(of=KnockOut("blocks.0.attn", keys=0))


def test_the_heads_of_a_row_are_counted(gpt2: Network) -> None:
    table = sweep(gpt2, task_of(), Patch("blocks.*.attn.z"), over=("site", "head"))
    assert table.sizes["head"] == HEADS
