"""Labels of Python source, by hand and against a scanner that reads one character at a time."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import openwork
from openwork.errors import BadInput
from openwork.worlds import BRACKETS, LabelledSource, label_file, label_folder, label_text

SNIPPET = '''\
class A:
    """Doc (x."""

    def f(self, load, *rest, key=None):  # see [1]
        value = self.load[load](key=load, b=f"{load(1)}")
        return {"a": value}
'''


def token_texts(source: LabelledSource, label: str) -> list[str]:
    """The tokens at which a label is set."""
    chosen = source.offsets[source.labels[label].astype(bool)]
    return [source.text[start:stop].strip() for start, stop in chosen]


def at(source: LabelledSource, piece: str, nth: int = 0) -> int:
    """The index of the nth token with this text."""
    texts = [source.text[start:stop] for start, stop in source.offsets]
    return [i for i, text in enumerate(texts) if text.strip() == piece.strip()][nth]


def test_roles_by_hand(pieces):
    source = label_text(SNIPPET, pieces)
    assert token_texts(source, "argument") == ["self", "load", "rest", "key"]
    assert token_texts(source, "keyword_argument") == ["key", "b"]
    assert token_texts(source, "attribute") == ["load"]
    assert token_texts(source, "keyword") == ["class", "def", "None", "return"]
    assert token_texts(source, "docstring") == ['"', '"', '"', "Doc", "(", "x", ".", '"', '"', '"']
    assert token_texts(source, "comment") == ["#", "see", "[", "1", "]"]
    names = ["A", "f", "self", "load", "rest", "key", "value", "self", "load", "load", "key", "load", "b", "value"]
    assert token_texts(source, "name") == names


def test_an_f_string_is_a_string_from_end_to_end(pieces):
    source = label_text(SNIPPET, pieces)
    inside = slice(at(source, "f", 1), at(source, "}") + 2)
    assert source.labels["string"][inside].all()
    assert not source.labels["name"][inside].any()
    assert (source.labels["bracket_depth"][inside] == 1).all()


def test_brackets_and_indentation_by_hand(pieces):
    source = label_text(SNIPPET, pieces)
    depth, which = source.labels["bracket_depth"], source.labels["open_bracket"]
    opening = at(source, "[", 1)
    assert (depth[opening], BRACKETS[which[opening]]) == (1, "[")
    assert (depth[opening + 2], BRACKETS[which[opening + 2]]) == (0, "")
    assert depth[at(source, "[")] == 0, "a bracket in a comment is text"
    levels = {piece: source.labels["indentation"][at(source, piece)] for piece in ("class", "def", "value", "return")}
    assert levels == {"class": 0, "def": 1, "value": 2, "return": 2}
    assert source.labels["indentation"][at(source, "value") - 1] == 2, "a line break carries the level it leads to"


def test_previous_points_at_the_last_token_of_that_name(pieces):
    source = label_text(SNIPPET, pieces)
    previous = source.labels["previous"]
    loads = [at(source, "load", n) for n in range(4)]
    assert [previous[i] for i in loads] == [-1, *loads[:3]]
    assert previous[at(source, "value", 1)] == at(source, "value")
    assert previous[at(source, "class")] == -1


def test_a_part_keeps_its_labels_and_forgets_what_lies_before(pieces):
    source = label_text(SNIPPET, pieces)
    start = at(source, "load") + 1
    part = source.cut(start, len(source))
    assert len(part) == len(source) - start
    np.testing.assert_array_equal(part.labels["bracket_depth"], source.labels["bracket_depth"][start:])
    first, second = at(part, "load"), at(part, "load", 1)
    assert (part.labels["previous"][first], part.labels["previous"][second]) == (-1, first)


@pytest.mark.parametrize("name", ["errors.py", "edit.py", "worlds/python_labels.py", "worlds/reading.py"])
def test_strings_comments_and_brackets_agree_with_a_scanner(name, characters, scan):
    text = (Path(openwork.__path__[0]) / name).read_text(encoding="utf-8")
    text = re.sub(r'\b[fr]?f(?=["\'])', "", text)
    source, found = label_text(text, characters), scan(text)
    np.testing.assert_array_equal(source.labels["bracket_depth"], [len(stack) for stack in found.open])
    innermost = [BRACKETS.index(stack[-1:]) for stack in found.open]
    np.testing.assert_array_equal(source.labels["open_bracket"], innermost)
    np.testing.assert_array_equal(source.labels["string"], found.string)
    np.testing.assert_array_equal(source.labels["comment"], found.comment)


def test_names_agree_with_the_syntax_tree(characters):
    text = (Path(openwork.__path__[0]) / "worlds" / "corpus.py").read_text(encoding="utf-8")
    source = label_text(text, characters)
    tree = list(ast.walk(ast.parse(text)))

    def runs(label: str) -> list[str]:
        flags = "".join("1" if flag else "0" for flag in source.labels[label])
        return sorted(text[run.start() : run.end()] for run in re.finditer("1+", flags))

    assert runs("argument") == sorted(node.arg for node in tree if isinstance(node, ast.arg))
    in_strings = [n for s in tree if isinstance(s, ast.JoinedStr) for n in ast.walk(s)]
    attributes = [n.attr for n in tree if isinstance(n, ast.Attribute) and n not in in_strings]
    assert runs("attribute") == sorted(attributes)


def test_letters_beyond_ascii_do_not_shift_the_roles(pieces):
    source = label_text("é = 'ß'; x = é.größe(ü=1)\n", pieces)
    assert token_texts(source, "attribute") == ["größe"]
    assert token_texts(source, "keyword_argument") == ["ü"]
    assert source.labels["previous"][at(source, "é", 1)] == at(source, "é")


def test_a_statement_over_several_lines_has_one_level(pieces):
    source = label_text("if a:\n    b = [\n  1,\n        2]\n\n# end\nc = 3\n", pieces)
    assert source.labels["indentation"][at(source, "2")] == 1
    assert source.labels["indentation"][at(source, "1")] == 1
    assert source.labels["indentation"][at(source, "c")] == 0


def test_empty_text_has_no_tokens(pieces):
    source = label_text("", pieces)
    assert len(source) == 0
    assert all(len(array) == 0 for array in source.labels.values())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfx = 1\n", "x = 1\n"),
        (b"x = 1\r\ny = 2\r\n", "x = 1\ny = 2\n"),
        (b"# coding: latin-1\nx = '\xe9'\n", "# coding: latin-1\nx = 'é'\n"),
        (b"", ""),
    ],
    ids=["byte-order mark", "carriage returns", "declared encoding", "empty"],
)
def test_files_are_read_as_python_reads_them(tmp_path, pieces, data, expected):
    path = tmp_path / "a.py"
    path.write_bytes(data)
    assert label_file(path, pieces).text == expected


def test_form_feeds_do_not_count_as_lines(pieces):
    source = label_text("a = 1\n\x0c\ndef f(b):\n    return b\n", pieces)
    assert token_texts(source, "argument") == ["b"]


@pytest.mark.parametrize("text", ["x = (\n", "x = 1\n  y = 2\n", "'''abc\n", "def f(:\n", "x = )\n", "a\x00b\n"])
def test_a_syntax_error_names_the_file(pieces, text):
    with pytest.raises(BadInput, match=r"mine\.py"):
        label_text(text, pieces, "mine.py")


def test_a_syntax_error_names_the_line(pieces):
    with pytest.raises(BadInput, match="line 3"):
        label_text("a = 1\nb = 2\nc = = 3\n", pieces, "mine.py")


def test_a_wrong_encoding_or_a_missing_file_is_our_error(tmp_path, pieces):
    path = tmp_path / "a.py"
    path.write_bytes(b"x = '\xe9'\n")
    with pytest.raises(BadInput, match=r"a\.py"):
        label_file(path, pieces)
    with pytest.raises(BadInput, match=r"b\.py"):
        label_file(tmp_path / "b.py", pieces)


def test_a_folder_skips_and_counts_what_it_cannot_read(tmp_path, pieces):
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x = (\n")
    (tmp_path / "odd.py").write_bytes(b"# coding: no-such\n")
    folder = label_folder(tmp_path, pieces)
    assert [source.name for source in folder.sources] == ["good.py"]
    assert [name for name, _ in folder.skipped] == ["bad.py", "odd.py"]


def test_a_token_takes_the_label_of_its_first_solid_character(pieces):
    source = label_text(textwrap.dedent("f( x)\n"), pieces)
    token = at(source, "x")
    assert source.text[slice(*source.offsets[token])] == " x"
    assert source.labels["name"][token]
