from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, CorruptFile, OutputOccupied
from openwork.store import (
    read_arrays,
    read_json,
    read_record,
    read_tensors,
    write_arrays,
    write_json,
    write_tensors,
    writing,
)


def test_json_round_trip_and_equal_values_make_equal_files(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "é <x>"}
    one, other = write_json(tmp_path / "x.json", value), write_json(tmp_path / "y.json", dict(reversed(value.items())))
    assert read_json(one) == value
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_json_refuses_what_it_cannot_hold(value: object, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.json"):
        write_json(tmp_path / "x.json", {"a": value})


def test_arrays_round_trip(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(["x", "yz"])}
    read = read_arrays(write_arrays(tmp_path / "a.npz", arrays))
    assert set(read) == {"a", "b"}
    assert all((read[name] == array).all() and read[name].dtype == array.dtype for name, array in arrays.items())


def test_arrays_never_run_code(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="objects"):
        write_arrays(tmp_path / "a.npz", {"a": np.array([{}], dtype=object)})
    np.savez(tmp_path / "b.npz", a=np.array([{}], dtype=object))
    with pytest.raises(CorruptFile):
        read_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize(("read", "name"), [(read_json, "x.json"), (read_arrays, "x.npz")])
def test_damaged_and_missing_files_are_named(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=name):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CorruptFile, match=name):
        read(tmp_path / name)


def test_a_cut_archive_is_corrupt(tmp_path: Path) -> None:
    path = write_arrays(tmp_path / "a.npz", {"a": np.random.default_rng(0).normal(size=1000)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorruptFile):
        read_arrays(path)


def test_tensors_keep_their_dtype(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensor = torch.randn(3, 4).bfloat16().T
    path = write_tensors(tmp_path / "t.safetensors", {"a": tensor}, {"made by": "a test"})
    assert torch.equal(load_file(path)["a"], tensor)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_json(tmp_path / "x.json", 1)

    def interrupted() -> None:
        with writing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputOccupied, match="file"):
        write_json(tmp_path / "file" / "x.json", 1)


def test_tensors_come_back_in_their_dtype(tmp_path: Path) -> None:
    given = {"a": torch.arange(3, dtype=torch.bfloat16), "b": torch.eye(2)}
    found = read_tensors(write_tensors(tmp_path / "t.safetensors", given))
    assert {name: value.dtype for name, value in found.items()} == {"a": torch.bfloat16, "b": torch.float32}
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_damaged_and_missing_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="damaged"):
        read_tensors(tmp_path / "t.safetensors")
    with pytest.raises(BadInput, match="there is none"):
        read_tensors(tmp_path / "elsewhere.safetensors")


@pytest.mark.parametrize("record", [[], {}, {"schema": "other", "schema_version": 1}, {"schema": "s"}])
def test_a_record_of_another_schema_is_refused(tmp_path: Path, record: object) -> None:
    with pytest.raises(CorruptFile, match="schema s version 1"):
        read_record(write_json(tmp_path / "r.json", record), "s", 1)


def test_a_record_of_the_schema_is_read(tmp_path: Path) -> None:
    record = {"schema": "s", "schema_version": 1, "more": 2}
    assert read_record(write_json(tmp_path / "r.json", record), "s", 1) == record
