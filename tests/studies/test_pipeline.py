from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, CorruptFile, Misaligned, OutputOccupied, TaskFailed
from openwork.faithfulness.planted import Plant
from openwork.finding import Evidence, Finding
from openwork.studies import load_arrays, load_study, pipeline, require_supported, study
from openwork.task import Inputs

STEPS = ("gate", "effects", "clusters", "candidates", "validation", "roles", "side_effects")


def timeless(path: Path) -> dict:
    record = json.loads((path / "study.json").read_text())
    del record["timestamps"]
    return record


def test_planted_circuit_is_found_and_supported(done) -> None:
    assert done.status == "supported", done.validation.reason
    assert done.exit_code == 0
    (chosen,) = [c for c in done.candidates.candidates if c.selected]
    assert {"blocks.0.attn.z[2]", "blocks.1.attn.z[7]"} <= {n.site for n in chosen.nodes}
    assert len(chosen.nodes) <= 3
    assert done.validation.faithfulness.low > 0.7
    assert done.validation.random.p_value < 0.01
    assert done.validation.random.n >= 500


def test_planted_heads_earn_their_names(done) -> None:
    named = {r.site: r.role for r in done.roles.heads if r.role}
    assert named["blocks.0.attn.z[2]"] == "previous token"
    assert named["blocks.1.attn.z[7]"] == "induction, copying"
    assert len(named) == 2
    nodes = {n.site: n.role for c in done.candidates.candidates if c.selected for n in c.nodes}
    assert nodes["blocks.1.attn.z[7]"] == "induction, copying"


def test_edges_lead_from_the_previous_token_head_to_the_induction_head_to_the_logits(done) -> None:
    score = {(e.sender, e.receiver): e for e in done.candidates.edges}
    first, second = "blocks.0.attn.z[2]", "blocks.1.attn.z[7]"
    assert score[first, second].significant
    assert score[second, "logits"].significant
    # all that the first does, it does through the second
    assert score[first, second].score.value > 10 * abs(score[first, "logits"].score.value)


def test_all_steps_and_their_arrays_are_there(done, folder) -> None:
    assert all(getattr(done, step) is not None for step in STEPS)
    arrays = load_arrays(folder)
    assert set(arrays) == set(done.arrays)
    assert {e.array for e in done.roles.attention} <= set(arrays)
    assert arrays["effects/values"].shape == (3, 26, done.task.n_find)
    assert arrays["validation/random"].shape == (done.validation.random.n,)
    assert load_study(folder).model_dump() == done.model_dump() or timeless(folder)["key"] == done.key


def test_the_claim_is_written_as_a_finding(done, folder) -> None:
    finding = Finding.from_json((folder / "finding.json").read_text())
    assert finding.verdict == done.status
    assert finding.evidence is Evidence.HELD_OUT
    assert finding.estimate == pytest.approx(done.validation.faithfulness.value)
    assert "blocks.1.attn.z[7]" in finding.claim


def test_knocking_it_out_costs_more_than_random_circuits(done) -> None:
    by_name = {s.slice: s for s in done.side_effects.slices}
    repeats = by_name["repeats an earlier pair"]
    assert repeats.change.value > repeats.random.value
    assert "comment" in by_name


def test_same_seed_gives_the_same_record(net, task, settings, done, folder, tmp_path, text) -> None:
    study(net, task, text=text, out=tmp_path / "again", settings=settings, quiet=True)
    assert timeless(tmp_path / "again") == timeless(folder)


def test_untrained_network_stops_at_the_gate(opened, task, settings, tmp_path, text) -> None:
    untrained = opened(Plant(heads=12), planted=False)
    result = study(untrained, task, text=text, out=tmp_path, settings=settings, quiet=True)
    assert result.status == "cannot do the task"
    assert result.exit_code == 3
    assert result.effects is None
    assert load_study(tmp_path).status == result.status
    with pytest.raises(TaskFailed, match="cannot do repeats"):
        require_supported(result)


def test_interrupted_study_keeps_its_steps_and_resumes(
    net, task, settings, done, folder, tmp_path, monkeypatch, text
) -> None:
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.validate, "validate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            study(net, task, text=text, out=tmp_path, settings=settings, quiet=True)
    kept = load_study(tmp_path)
    assert kept.status == "running"
    assert kept.candidates is not None
    assert kept.validation is None
    with monkeypatch.context() as patch:
        # what was done is not done again
        patch.setattr(pipeline.effects, "measure", interrupt)
        patch.setattr(pipeline.clusters, "find", interrupt)
        study(net, task, text=text, out=tmp_path, settings=settings, quiet=True)
    assert timeless(tmp_path) == timeless(folder)


def test_finished_study_is_read_not_run_again(net, task, settings, done, folder, monkeypatch, text) -> None:
    monkeypatch.setattr(pipeline.gate, "check", None)
    again = study(net, task, text=text, out=folder, settings=settings, quiet=True)
    assert again.summary == done.summary


@pytest.mark.parametrize("change", [{"seed": 1}, {"settings": None}])
def test_folder_of_another_study_is_refused(net, task, settings, done, folder, change, text) -> None:
    with pytest.raises(OutputOccupied, match="another study"):
        study(net, task, **({"text": text, "out": folder, "settings": settings, "quiet": True} | change))


def test_folder_with_other_files_is_refused(net, task, settings, tmp_path, text) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputOccupied, match=r"thesis\.tex"):
        study(net, task, text=text, out=tmp_path, settings=settings, quiet=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_file_instead_of_folder_is_refused(net, task, settings, tmp_path, text) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputOccupied, match="--out"):
        study(net, task, text=text, out=tmp_path / "file", settings=settings, quiet=True)


def test_damaged_record_is_refused(net, task, settings, tmp_path, text) -> None:
    (tmp_path / "study.json").write_text('{"schema_version": 1')
    with pytest.raises(CorruptFile, match=r"study\.json"):
        study(net, task, text=text, out=tmp_path, settings=settings, quiet=True)


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("x = 1\n", "4 rows"), (Path("/nowhere"), "exist")])
def test_text_that_is_empty_short_or_missing_is_refused(net, task, settings, tmp_path, text, said) -> None:
    with pytest.raises(BadInput, match=said):
        study(net, task, text=text, out=tmp_path / "out", settings=settings, quiet=True)
    assert not (tmp_path / "out").exists()


def test_nan_weights_are_refused(opened, task, settings, tmp_path, text) -> None:
    broken = opened(Plant(heads=12))
    broken.module.unembed.weight.data[3] = torch.nan
    with pytest.raises(BadInput, match="NaN"):
        study(broken, task, text=text, out=tmp_path, settings=settings, quiet=True)


def test_unaligned_examples_are_refused(net, task, settings, tmp_path, text) -> None:
    longer = Inputs(tuple((*row, 1) for row in task.corrupted.ids), task.corrupted.groups)
    with pytest.raises(Misaligned, match="token by token"):
        study(net, replace(task, corrupted=longer), text=text, out=tmp_path, settings=settings, quiet=True)


def test_progress_goes_to_stderr_only(net, task, settings, tmp_path, capsys, opened, text) -> None:
    study(opened(Plant(heads=12), planted=False), task, text=text, out=tmp_path, settings=settings)
    assert capsys.readouterr().out == ""


def test_effects_permuted_give_no_support(net, task, settings, done, folder, tmp_path, monkeypatch, text) -> None:
    """The candidate then comes from chance, and held-out examples must say so."""
    measure = pipeline.effects.measure

    def permuted(*args, **kwargs):
        table = measure(*args, **kwargs)
        order = np.random.default_rng(3).permutation(len(table.components))
        names = [str(c) for c in table.components]
        given = {names[i]: names[j] for i, j in enumerate(order)}
        kinds = {str(c): c for c in table.components}
        records = [
            e.model_copy(update={"site": given[e.site], "kind": kinds[given[e.site]].kind})
            for e in table.effects.components
        ]
        return replace(
            table,
            values=table.values[:, np.argsort(order)],
            effects=table.effects.model_copy(update={"components": records}),
        )

    monkeypatch.setattr(pipeline.effects, "measure", permuted)
    result = study(net, task, text=text, out=tmp_path, settings=settings, quiet=True)
    assert result.status in ("rejected", "inconclusive")
    assert result.exit_code == 4
