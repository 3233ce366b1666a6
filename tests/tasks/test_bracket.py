"""Brackets of real code, against a stack of `tokenize`'s operators."""

from __future__ import annotations

import io
import tokenize
from collections import Counter

import pytest

from openwork.errors import BadInput
from openwork.tasks.bracket import PAIRS, bracket

N = 60


@pytest.fixture(scope="module")
def task(tokenizer, code):
    return bracket(tokenizer, n=N, source=code)


def closings(text: str) -> list[tuple[int, int]]:
    """(index of the opening, index of the closing) bracket of every pair of a file."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    stack, found = [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        at = starts[token.start[0] - 1] + token.start[1]
        if token.type == tokenize.OP and token.string in PAIRS:
            stack.append(at)
        elif token.type == tokenize.OP and token.string in PAIRS.values():
            found.append((stack.pop(), at))
    return found


def test_answers_close_the_bracket_that_the_group_names(task, tokenizer, code):
    pairs = {p.name: (p.read_text(), closings(p.read_text())) for p in code.glob("*.py")}
    for r, ids in enumerate(task.clean.ids):
        prompt, answer = tokenizer.decode(ids[1:]), tokenizer.decode([task.answer[r]])
        (opening,) = task.clean.groups["opening"][r]
        offset = len(prompt) - len(tokenizer.decode(ids[1 : opening + 1]).rstrip()) + 1
        homes = [
            (text[o], text[c])
            for text, found in pairs.values()
            for o, c in found
            if text[:c].endswith(prompt) and c - o == offset
        ]
        assert homes
        assert {tokenizer.decode([ids[opening]]).strip() + answer} == {a + b for a, b in homes}


def test_corrupted_has_another_kind_of_opening_bracket(task, tokenizer):
    for r, (clean, corrupted) in enumerate(zip(task.clean.ids, task.corrupted.ids, strict=True)):
        changed = tuple(i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
        assert changed == task.clean.groups["opening"][r]
        before, after = (tokenizer.decode([ids[changed[0]]]) for ids in (clean, corrupted))
        assert PAIRS[after.strip()] == tokenizer.decode([task.wrong[r]])
        assert before != after
        assert before.replace(before.strip(), "") == after.replace(after.strip(), "")


def test_kinds_are_balanced_and_files_stay_whole(task, tokenizer, code):
    counts = Counter(tokenizer.decode([a]) for a in task.answer)
    assert set(counts) == set(PAIRS.values())
    assert min(counts.values()) >= N / 6
    texts = {p.name: p.read_text() for p in code.glob("*.py")}
    sides: dict[str, set[bool]] = {}
    for r, ids in enumerate(task.clean.ids):
        prompt = tokenizer.decode([*ids[1:], task.answer[r]])
        (home,) = {name for name, text in texts.items() if prompt in text}
        sides.setdefault(home, set()).add(r in task.held_out)
    assert all(len(side) == 1 for side in sides.values())


def test_seed(task, tokenizer, code):
    assert bracket(tokenizer, n=N, source=code) == task
    assert bracket(tokenizer, n=N, source=code, seed=1).clean != task.clean


def test_a_single_file_and_brackets_in_text_that_are_none(tokenizer, tmp_path):
    path = tmp_path / "one.py"
    rows = [f"v{i} = [a, b, c, d, {i}]  # not closed: (((\ns{i} = '{{{{{{ ( a b c d e ]'\n" for i in range(100)]
    path.write_text("".join(rows))
    task = bracket(tokenizer, n=30, source=path)
    assert {tokenizer.decode([a]) for a in task.answer} == {"]"}
    assert 0 < len(task.held_out) < len(task)


def test_a_file_that_does_not_parse(tokenizer, code, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = (1, 2\n")
    with pytest.raises(BadInput, match=r"broken\.py, line 1"):
        bracket(tokenizer, source=broken)
    for path in code.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    assert bracket(tokenizer, n=N, source=tmp_path) == bracket(tokenizer, n=N, source=code)


def test_too_few_brackets_are_counted(tokenizer, tmp_path):
    (tmp_path / "a.py").write_text("x = [a, b, c, d, e]\n")
    (tmp_path / "b.py").write_text("x = f()\n")
    with pytest.raises(BadInput, match=r"at least 16 closing brackets .*; found 1"):
        bracket(tokenizer, source=tmp_path)


def test_a_source_needs_a_tokenizer_with_offsets(characters, code):
    with pytest.raises(BadInput, match="fast tokenizer"):
        bracket(characters, source=code)
