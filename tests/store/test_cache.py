from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from openwork.errors import BadInput
from openwork.store import CacheKey, cache_folder, clean_cache, code_version, list_cache, write_json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path))
    return tmp_path


def put(key: CacheKey) -> None:
    write_json(key.folder / "index.json", {"key": key.__dict__})


KEY = CacheKey("activations", "m", "d", "blocks.*.mlp.out", "float32", "old")


def test_the_folder_is_the_one_asked_for_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("OPENWORK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "openwork"


def test_every_part_of_the_key_decides_where_it_lies(folder: Path) -> None:
    changed = [replace(KEY, **{name: "other"}) for name in KEY.__dict__]
    assert len({key.folder for key in [KEY, *changed]}) == 7
    assert KEY.folder.parent == folder / "activations"


def test_a_kind_cannot_leave_the_cache() -> None:
    with pytest.raises(BadInput, match="plain word"):
        replace(KEY, kind="../elsewhere")


def test_listing_tells_whole_from_half_written(folder: Path) -> None:
    put(KEY)
    half = replace(KEY, site="embed")
    half.folder.mkdir(parents=True)
    (half.folder / "000000.safetensors").write_bytes(b"12345")
    entries = {entry.path: entry for entry in list_cache()}
    assert entries[KEY.folder].key == KEY.__dict__
    assert entries[KEY.folder].whole
    assert not entries[half.folder].whole
    assert entries[half.folder].n_bytes == 5


@pytest.mark.parametrize("index", ["[1]", "{}", '{"key": null}', "not json"])
def test_a_damaged_index_is_listed_and_not_trusted(index: str, folder: Path) -> None:
    KEY.folder.mkdir(parents=True)
    (KEY.folder / "index.json").write_text(index)
    assert [entry.whole for entry in list_cache()] == [False]


def test_cleaning_by_kind_and_by_version(folder: Path) -> None:
    current = replace(KEY, code=code_version())
    other = replace(KEY, kind="lenses")
    for key in (KEY, current, other):
        put(key)
    assert [entry.path for entry in clean_cache("activations", stale_only=True)] == [KEY.folder]
    assert {entry.path for entry in list_cache()} == {current.folder, other.folder}
    clean_cache()
    assert list(list_cache()) == []


def test_an_empty_cache_is_no_error(folder: Path) -> None:
    assert list(list_cache()) == clean_cache() == []
