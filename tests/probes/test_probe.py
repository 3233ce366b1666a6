"""The sweep of probes on networks of which it is known where each variable is written, and how."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openwork import zoo
from openwork.errors import BadInput
from openwork.probes import Linear, Probing, Sample, from_program, probe, read_by, train
from openwork.results import Result
from openwork.site import Site

SMALL = Sample(rows=120, places=600)


@pytest.fixture(scope="module")
def member():
    return zoo.open("compiled/sort")


@pytest.fixture(scope="module")
def ranks(member) -> Result:
    labelled = from_program(member.program, "rank", SMALL)
    method = Probing(controls=2, alpha=0.2, min_documents=10)
    return probe(member.net, labelled, ["blocks.*.resid_pre", "blocks.*.resid_post"], method)


def scores(result: Result, source: str = "probe") -> dict[str, float]:
    found = result.table["score"].sel(form="linear", source=source)
    return dict(zip(map(str, found.coords["site"].values), found.to_numpy().tolist(), strict=True))


def test_a_variable_is_read_exactly_once_it_is_computed_and_not_before(ranks: Result) -> None:
    found = scores(ranks)
    assert found["blocks.1.resid_post"] == found["blocks.2.resid_post"] == 1
    assert max(found["blocks.0.resid_pre"], found["blocks.0.resid_post"], found["blocks.1.resid_pre"]) < 0.6


def test_before_it_is_computed_a_probe_knows_no_more_than_the_token(ranks: Result) -> None:
    assert scores(ranks)["blocks.0.resid_post"] < scores(ranks, "token identity")["blocks.0.resid_post"] + 0.1


def test_labels_that_mean_nothing_are_not_read(ranks: Result) -> None:
    assert max(scores(ranks, "control task").values()) < 0.25
    assert float(ranks.table["selectivity"].sel(site="blocks.1.resid_post").item()) > 0.75


def test_the_subspace_that_is_read_lies_in_the_known_one(member) -> None:
    labelled = from_program(member.program, "rank", SMALL)
    found = train(member.net, labelled, "blocks.1.resid_post", Linear((10.0,))).direction.array.numpy()
    known = member.known.directions["rank"]
    assert known.site == Site("blocks.1.resid_post")
    basis = np.linalg.qr(known.array.numpy().T).Q
    # of each channel that tells the rank, the one that is written for it is the surest, and no other is needed
    inside = np.square(found @ basis).sum() / len(found)
    width = found.shape[1]
    assert inside > 2 * basis.shape[1] / width
    only = train(member.net, labelled, "blocks.1.resid_post").predict
    x = np.eye(width)[:3]
    assert only(x).shape == (3,)


def test_reading_alone_is_never_supported(ranks: Result) -> None:
    (finding,) = ranks.findings
    assert ranks.table.attrs["read"] == "yes"
    assert str(finding.verdict) == "inconclusive"
    assert finding.reasons == ("the network was only observed: intervene on it",)
    assert finding.control is not None
    assert finding.rival is not None
    assert finding.control.n == 25


def test_what_is_not_there_is_not_read(member) -> None:
    labelled = from_program(member.program, "rank", SMALL)
    rng = np.random.default_rng(0)
    nothing = replace(labelled, labels=rng.permutation(labelled.labels))
    result = probe(member.net, nothing, "blocks.1.resid_post", Probing(controls=1, alpha=0.2, min_documents=10))
    assert result.table.attrs["read"] == "no"


def test_the_basis_of_the_best_site_is_a_direction_there(ranks: Result) -> None:
    direction = read_by(ranks)
    assert str(direction.site) == ranks.table.attrs["site"]
    assert direction.array.shape[0] == 6


def test_a_result_read_back_is_the_same(ranks: Result, tmp_path) -> None:
    again = Result.load(ranks.save(tmp_path))
    assert again.findings == ranks.findings
    assert again.table.equals(ranks.table)


def test_the_result_of_another_method_has_no_direction(ranks: Result) -> None:
    with pytest.raises(BadInput, match="no basis"):
        read_by(Result("other", (), ranks.table.drop_vars("basis")))


def test_wrong_knobs_are_refused() -> None:
    with pytest.raises(BadInput, match="different forms"):
        Probing((Linear(), Linear()))
    with pytest.raises(BadInput, match="a control task"):
        Probing(controls=0)
