"""Pictures beside the images that activate units: one table, the findings of all parts, and what either predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import xarray

from openwork.errors import BadInput
from openwork.network import Network
from openwork.results.result import Result
from openwork.vision.beside import Beside
from openwork.vision.responses.exemplars import Exemplars, exemplars
from openwork.vision.responses.predicts import predicts
from openwork.vision.synthesis.visualise import Ascent, visualise
from openwork.vision.units import units_of
from openwork.worlds.picture_array import PictureArray

from .responses.planted_units import SIZE, Detectors, opened, squares

COLOURS = np.eye(3)
"""What each unit detects."""


@dataclass(frozen=True)
class Case:
    """A network, its corpus, and what was made and read."""

    net: Network
    corpus: PictureArray
    made: Result
    beside: Beside
    joined: Result


@pytest.fixture(scope="module")
def case() -> Case:
    net, corpus = opened(Detectors()), squares(200)
    units = units_of(net, "module:conv.out[0-2]")
    beside = Beside.of(net, units, corpus)
    made = visualise(net, units, Ascent(steps=24))
    return Case(net, corpus, made, beside, beside.joined(made))


def test_every_part_is_in_the_table_under_its_own_name(case: Case) -> None:
    table = case.joined.table
    names = [unit.name for unit in case.beside.units]
    assert table["unit"].to_numpy().tolist() == names
    np.testing.assert_array_equal(table["pixels"], case.made.table["pixels"])
    examples = exemplars(case.net, case.beside.units, case.corpus, Exemplars()).table
    np.testing.assert_array_equal(table["example_row"], examples["row"])
    predicted = predicts(case.net, case.beside.units, case.corpus, case.beside.testing).table
    np.testing.assert_array_equal(table["examples_accuracy"], predicted["accuracy"])


@pytest.mark.parametrize("times", [1, 2], ids=["its size", "twice its size"])
def test_what_pictures_predict_is_read_from_the_pictures(case: Case, times: int) -> None:
    """Pictures of nothing but the colour of each detector say when it is active; those of another's do not."""
    flat = np.broadcast_to(COLOURS[:, :, None, None], (3, 3, times * SIZE, times * SIZE))
    found = []
    for pixels in (flat, np.roll(flat, 1, 0)):
        table = xarray.Dataset({"pixels": (("unit", "channel", "y", "x"), pixels)}, {"unit": case.made.table["unit"]})
        joined = case.beside.joined(Result("visualise", (), table, {}))
        found.append(joined.table["picture_accuracy"].to_numpy()[:, 0])
    assert found[0].min() > 0.8
    assert found[1].max() < 0.6


def test_all_claims_and_remarks_are_there_once(case: Case) -> None:
    claims = [finding.claim for finding in case.joined.findings]
    parts = len(case.made.findings) + len(case.beside.predicted.findings)
    assert len(claims) > parts
    assert [f.claim for f in case.made.findings] == claims[: len(case.made.findings)]
    assert len(set(case.joined.remarks)) == len(case.joined.remarks)
    assert set(case.made.remarks) <= set(case.joined.remarks)


def test_too_small_a_corpus_is_refused(case: Case) -> None:
    with pytest.raises(BadInput, match="images"):
        Beside.of(case.net, case.beside.units, squares(6))
