from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from openwork.errors import BadInput
from openwork.store import code_version, hash_file, hash_json, hash_state, hash_tree


def test_file_hash_is_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_tree_hash_sees_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / root / "sub").mkdir(parents=True)
        (tmp_path / root / "sub" / "a.py").write_text("x = 1")
    (tmp_path / "two" / "note.txt").write_text("not Python")
    first = hash_tree(tmp_path / "one", "*.py")
    assert first == hash_tree(tmp_path / "two", "*.py") != hash_tree(tmp_path / "two")
    (tmp_path / "one" / "sub" / "a.py").rename(tmp_path / "one" / "sub" / "b.py")
    assert hash_tree(tmp_path / "one", "*.py") != first
    with pytest.raises(BadInput, match=r"\*\.c"):
        hash_tree(tmp_path, "*.c")


def test_json_hash_ignores_the_order_of_keys() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1}) != hash_json({"b": [2, 1], "a": 1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_state_hash_sees_name_dtype_shape_and_every_element(dtype: torch.dtype) -> None:
    state = {"b": torch.ones(2, 3).to(dtype), "a": torch.zeros((), dtype=dtype)}
    base = hash_state(state)
    assert base == hash_state({"a": state["a"].clone(), "b": state["b"].T.contiguous().T})
    changed = state["b"].clone()
    changed[1, 2] = 0
    others = [{"c": state["b"], "a": state["a"]}, {**state, "b": changed}, {**state, "b": state["b"].reshape(3, 2)}]
    others.append({**state, "a": state["a"].to(torch.float64)})
    assert len({base, *map(hash_state, others)}) == 5


def test_code_version_names_the_release_and_the_source() -> None:
    import openwork

    release, _, digest = code_version().partition("+")
    assert release == openwork.__version__
    assert len(digest) == 12
