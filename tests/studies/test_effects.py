from __future__ import annotations

import pytest

from openwork.studies.effects import ELSEWHERE, MARK, METHODS, RANDOM, ROTATED, with_positions

PREVIOUS, INDUCTION = "blocks.0.attn.z[2]", "blocks.1.attn.z[7]"


def named(done, method: str) -> dict:
    return {e.site: e for e in done.effects.components if e.method == method}


def test_planted_heads_have_the_largest_effects(done) -> None:
    ablated = sorted(named(done, "mean ablation").values(), key=lambda e: -e.effect.value)
    assert {e.site for e in ablated[:2]} == {PREVIOUS, INDUCTION}
    for method in ("noising", "denoising"):
        table = named(done, method)
        assert table[INDUCTION].significant
        # the corrupted run differs in what is copied, not in what stands before it
        assert abs(table[PREVIOUS].effect.value) < 0.05 * table[INDUCTION].effect.value


def test_controls_stand_beside_effects_and_are_smaller(done) -> None:
    for effect in done.effects.components:
        assert len(effect.controls) == (2 if effect.method == "noising" else 1)
    own = named(done, "noising")[INDUCTION]
    for control in own.controls:
        assert control.value < 0.6 * own.effect.value
        assert control.p_value < 0.01
    assert own.controls[1].name == ROTATED


def test_writing_a_run_s_own_values_changes_nothing(done) -> None:
    assert done.effects.identity < 1e-4


def test_few_unplanted_components_are_significant(done) -> None:
    idle = [e for e in done.effects.components if e.site not in (PREVIOUS, INDUCTION)]
    assert len(idle) == 24 * len(METHODS)
    large = [e for e in idle if e.effect.value > 0.1 * named(done, e.method)[INDUCTION].effect.value]
    assert large == []


def test_residual_positions_show_where_the_information_is(done) -> None:
    value = {(e.layer, e.position): e.effect.value for e in done.effects.residual if e.method == "noising"}
    gap = done.effects.clean.value - done.effects.corrupted.value
    source, last = "after previous occurrence", "last"
    # before block 1 what is copied still stands where it was; after it, at the answer's position
    assert value[0, source] == pytest.approx(gap, rel=0.05)
    assert value[1, source] == pytest.approx(gap, rel=0.1)
    assert value[2, last] == pytest.approx(gap, rel=0.05)
    assert abs(value[2, source]) < 0.05 * gap
    assert abs(value[1, last]) < 0.1 * gap
    assert done.effects.layers == [0, 1, 2]
    assert set(done.effects.positions) == {p for _, p in value}


def test_random_positions_carry_nothing(done) -> None:
    place = (0, "after previous occurrence", "noising")
    (cell,) = [e for e in done.effects.residual if (e.layer, e.position, e.method) == place]
    random = next(c for c in cell.controls if c.name.startswith("random positions"))
    assert random.value < 0.3 * cell.effect.value


def test_position_groups_share_no_position_and_leave_none_out(task) -> None:
    batch = with_positions(task.split("find"), 0)
    groups = {k: v for k, v in batch.clean.groups.items() if k.startswith(MARK) and not k.endswith(RANDOM)}
    assert MARK + ELSEWHERE in groups
    for row, at in enumerate(batch.at):
        positions = [p for rows in groups.values() for p in rows[row]]
        assert sorted(positions) == list(range(at + 1))
    assert batch.clean.groups == batch.corrupted.groups


def test_random_positions_are_as_many_and_others(task) -> None:
    batch = with_positions(task.split("find"), 0)
    for name, rows in batch.clean.groups.items():
        if name.endswith(RANDOM):
            own = batch.clean.groups[name.removesuffix(RANDOM)]
            assert all(len(a) == len(b) and not set(a) & set(b) for a, b in zip(rows, own, strict=True))
