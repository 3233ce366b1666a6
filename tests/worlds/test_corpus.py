"""Which files a corpus holds, and which of them are held out."""

from __future__ import annotations

import pytest

from openwork.errors import BadInput
from openwork.worlds import Corpus, split_of, standard_library


@pytest.fixture
def folder(tmp_path):
    for name in ("b.py", "a.py", "sub/c.py", "__pycache__/d.py", "site-packages/e.py", "f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


def test_files_come_in_order_without_installed_packages(folder):
    assert Corpus.below(folder).names == ("a.py", "b.py", "sub/c.py")


def test_the_split_is_of_whole_files_by_their_path_alone():
    names = [f"folder/file{i}.py" for i in range(2000)]
    held_out = [name for name in names if split_of(name) == "held-out"]
    assert 140 < len(held_out) < 260
    assert held_out == [name for name in reversed(names) if split_of(name) == "held-out"][::-1]


def test_the_parts_are_the_whole():
    corpus = Corpus.below(standard_library() / "json")
    parts = corpus.split("train").names + corpus.split("held-out").names
    assert sorted(parts) == list(corpus.names)


def test_the_fingerprint_sees_every_byte_and_every_name(folder):
    before = Corpus.below(folder).fingerprint()
    assert before["files"] == 3
    (folder / "a.py").write_text("# other\n")
    changed = Corpus.below(folder).fingerprint()
    (folder / "a.py").rename(folder / "aa.py")
    renamed = Corpus.below(folder).fingerprint()
    assert len({before["sha256"], changed["sha256"], renamed["sha256"]}) == 3


def test_a_folder_without_python_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="found none"):
        Corpus.below(tmp_path)
    with pytest.raises(BadInput, match="existing folder"):
        Corpus.below(tmp_path / "missing")
