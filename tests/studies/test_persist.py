from __future__ import annotations

import json
import os

import numpy as np
import pytest
from pydantic import ValidationError

from openwork.errors import CorruptFile, OutputOccupied
from openwork.studies.persist import Folder, dump, load_arrays, load_study
from openwork.studies.schema import Estimate, Study


def test_record_comes_back_as_it_was(done, tmp_path) -> None:
    Folder(tmp_path, done.key).save(done, {"a": np.arange(3)})
    assert dump(load_study(tmp_path)) == dump(done)
    assert load_arrays(tmp_path)["a"].tolist() == [0, 1, 2]


def test_arrays_of_earlier_steps_stay(done, tmp_path) -> None:
    Folder(tmp_path, done.key).save(done, {"a": np.arange(3)})
    Folder(tmp_path, done.key).save(done, {"b": np.zeros(2)})
    assert set(load_arrays(tmp_path)) == {"a", "b"}


def test_failed_write_leaves_the_old_record(done, tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path, done.key)
    folder.save(done, {})
    before = (tmp_path / "study.json").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        folder.save(done.model_copy(update={"summary": "new"}), {})
    assert (tmp_path / "study.json").read_bytes() == before


def test_folder_that_is_not_writable_is_refused(done, tmp_path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        locked = tmp_path / "file" / "below"
        locked.parent.write_text("a file where a folder should be")
    with pytest.raises(OutputOccupied, match="written"):
        Folder(locked, done.key)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"schema_version": 2},
        lambda record: record | {"surprise": 1},
        lambda record: {k: v for k, v in record.items() if k != "model"},
    ],
)
def test_record_of_another_shape_is_refused(done, tmp_path, spoil) -> None:
    (tmp_path / "study.json").write_text(json.dumps(spoil(done.model_dump(mode="json"))))
    with pytest.raises(CorruptFile, match="schema version 1"):
        load_study(tmp_path)


def test_missing_record_is_refused(tmp_path) -> None:
    with pytest.raises(CorruptFile, match="cannot be read"):
        load_study(tmp_path)


def test_damaged_arrays_are_refused(done, tmp_path) -> None:
    Folder(tmp_path, done.key).save(done, {"a": np.arange(3)})
    (tmp_path / "arrays.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CorruptFile):
        Folder(tmp_path, done.key)


def test_numbers_that_are_not_finite_have_no_place_in_a_record() -> None:
    with pytest.raises(ValidationError):
        Estimate(value=float("nan"), low=0, high=1, n=3)


@pytest.mark.parametrize(
    ("status", "code"), [("supported", 0), ("cannot do the task", 3), ("rejected", 4), ("inconclusive", 4)]
)
def test_exit_codes(done: Study, status, code) -> None:
    assert done.model_copy(update={"status": status}).exit_code == code
