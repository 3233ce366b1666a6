from __future__ import annotations

import pytest

from openwork.errors import BadInput
from openwork.studies import StudySettings


def test_round_trip() -> None:
    settings = StudySettings(examples=40, ablation="corrupted")
    assert StudySettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "knobs", [{"examples": 1}, {"alpha": 0.0}, {"role_share": 1.0}, {"random_circuits": 99}, {"texts": 0}]
)
def test_knobs_outside_their_range_are_refused(knobs) -> None:
    with pytest.raises(BadInput, match="expected"):
        StudySettings(**knobs)


def test_unknown_knob_is_refused() -> None:
    with pytest.raises(BadInput, match="exampels"):
        StudySettings.from_json({"exampels": 3})
