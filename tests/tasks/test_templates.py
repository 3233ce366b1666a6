"""The tasks that write their own text: argument copying, docstrings, and brackets without a source."""

from __future__ import annotations

import ast
import keyword
import re

import pytest

from openwork.errors import BadInput
from openwork.tasks import argument, bracket, docstring
from openwork.tasks.names import ARGUMENTS, PROSE

N = 60
CLOSES = {"(": ")", "[": "]", "{": "}"}
MAKERS = {"argument": argument, "docstring": docstring, "bracket": bracket}


@pytest.fixture(scope="module")
def tasks(tokenizer):
    return {name: make(tokenizer, n=N) for name, make in MAKERS.items()}


def texts(tokenizer, inputs) -> list[str]:
    return [tokenizer.decode(ids[1:]) for ids in inputs.ids]


def signature(text: str) -> list[str]:
    return re.findall(r"\(self, (.*?)\)", text)[0].split(", ")


def next_stored(text: str) -> str:
    return re.findall(r"self\.(\w+) =$", text)[0]


def next_param(text: str) -> str:
    arguments, named = signature(text), re.findall(r":param (\w+):", text)
    assert named == arguments[: len(named)]
    return arguments[len(named)]


def next_closer(text: str) -> str:
    stack = []
    for character in text:
        if character in CLOSES:
            stack.append(CLOSES[character])
        elif character in CLOSES.values():
            assert stack.pop() == character
    return stack[-1]


ORACLES = {
    "argument": lambda t: " " + next_stored(t),
    "docstring": lambda t: " " + next_param(t),
    "bracket": next_closer,
}


@pytest.mark.parametrize("name", MAKERS)
def test_answers_are_those_of_an_oracle_that_reads_the_text(tasks, tokenizer, name):
    task = tasks[name]
    assert len(task) == N
    for inputs, answers in ((task.clean, task.answer), (task.corrupted, task.wrong)):
        expected = [ORACLES[name](text) for text in texts(tokenizer, inputs)]
        assert [tokenizer.decode([a]) for a in answers] == expected


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_are_those_that_the_tokenizer_makes_of_the_text_and_align(tasks, tokenizer, name):
    task = tasks[name]
    for clean, corrupted in zip(task.clean.ids, task.corrupted.ids, strict=True):
        assert tokenizer.encode(tokenizer.decode(clean[1:])) == list(clean)
        assert tokenizer.encode(tokenizer.decode(corrupted[1:])) == list(corrupted)
        assert len(clean) == len(corrupted)
    changed = {"argument": "attribute", "bracket": "opening"}.get(name)
    for r, (clean, corrupted) in enumerate(zip(task.clean.ids, task.corrupted.ids, strict=True)):
        differs = {i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b}
        groups = task.clean.groups
        expected = groups[changed][r] if changed else groups["next argument"][r] + groups["exchanged argument"][r]
        assert differs == set(expected)


@pytest.mark.parametrize("name", MAKERS)
def test_split_and_seed(tasks, tokenizer, name):
    task = tasks[name]
    assert 0.4 * N <= len(task.held_out) <= 0.6 * N
    assert MAKERS[name](tokenizer, n=N) == task
    assert MAKERS[name](tokenizer, n=N, seed=5).clean != task.clean
    find = {ids for r, ids in enumerate(task.clean.ids) if r not in task.held_out}
    assert not find & {task.clean.ids[r] for r in task.held_out}


def named(task, tokenizer, group: str, row: int, inputs="clean") -> list[str]:
    inputs = getattr(task, inputs)
    return [tokenizer.decode([inputs.ids[row][p]]).strip() for p in inputs.groups[group][row]]


def test_groups_of_argument(tasks, tokenizer):
    task = tasks["argument"]
    chances = []
    for r, text in enumerate(texts(tokenizer, task.clean)):
        stored = re.findall(r"self\.(\w+) = ", text)
        arguments = signature(text)
        assert named(task, tokenizer, "arguments", r) == arguments
        assert named(task, tokenizer, "argument", r) == [next_stored(text)] == named(task, tokenizer, "attribute", r)
        assert named(task, tokenizer, "rival argument", r) == [tokenizer.decode([task.wrong[r]]).strip()]
        assert named(task, tokenizer, "attribute", r, "corrupted") == named(task, tokenizer, "rival argument", r)
        assert max(task.clean.groups["arguments"][r]) < min(task.clean.groups["attribute"][r])
        assert not {next_stored(text), *named(task, tokenizer, "rival argument", r)} & set(stored)
        chances.append(1 / len(arguments))
    assert task.chance == pytest.approx(sum(chances) / N)


def test_groups_of_docstring(tasks, tokenizer):
    task = tasks["docstring"]
    chances = []
    for r, text in enumerate(texts(tokenizer, task.clean)):
        arguments, done = signature(text), re.findall(r":param (\w+):", text)
        assert named(task, tokenizer, "arguments", r) == arguments
        assert named(task, tokenizer, "next argument", r) == [arguments[len(done)]]
        assert (
            named(task, tokenizer, "previous argument", r)
            == [done[-1]]
            == named(task, tokenizer, "previous mention", r)
        )
        assert task.clean.groups["previous mention"][r][0] > max(task.clean.groups["arguments"][r])
        assert task.clean.groups["previous argument"][r][0] == task.clean.groups["arguments"][r][len(done) - 1]
        assert named(task, tokenizer, "exchanged argument", r) == [tokenizer.decode([task.wrong[r]]).strip()]
        chances.append(1 / (len(arguments) - len(done)))
        ast.parse(f'class A:\n{text} x:\n        """\n')
    assert task.chance == pytest.approx(sum(chances) / N)
    assert max(chances) <= 0.25


def test_brackets_are_asked_about_equally_often(tasks, tokenizer):
    task = tasks["bracket"]
    counts = [[tokenizer.decode([a]) for a in task.answer].count(c) for c in CLOSES.values()]
    assert counts == [N / 3] * 3
    assert task.chance == pytest.approx(1 / 3)
    for r, text in enumerate(texts(tokenizer, task.clean)):
        (opening,) = named(task, tokenizer, "opening", r)
        assert CLOSES[opening] == next_closer(text)


@pytest.mark.parametrize("name", ["argument", "docstring"])
def test_a_source_is_refused_where_text_is_written(tokenizer, code, name):
    with pytest.raises(BadInput, match="writes its own text"):
        MAKERS[name](tokenizer, source=code)


@pytest.mark.parametrize("name", ["argument", "docstring"])
def test_a_tokenizer_without_whole_words_is_refused(characters, name):
    with pytest.raises(BadInput, match=r"for 0 of \d+"):
        MAKERS[name](characters)


def test_brackets_that_melt_are_refused(characters):
    class Melting:
        """Writes every bracket together with the character before it."""

        def encode(self, text):
            return [
                sum(map(ord, piece)) * 1000 + len(piece) for piece in re.findall(r"[^()\[\]{}]?[()\[\]{}]+|.|\n", text)
            ]

        def decode(self, ids):
            return ""

    with pytest.raises(BadInput, match="tokens of their own"):
        bracket(Melting(), n=4)
    assert len(bracket(characters, n=4)) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_one_example_cannot_be_split(tokenizer, name):
    with pytest.raises(BadInput, match="n of at least 2"):
        MAKERS[name](tokenizer, n=1)


def test_words_are_names_and_prose_is_none_of_them():
    assert len(set(ARGUMENTS)) == len(ARGUMENTS)
    assert len(set(PROSE)) == len(PROSE)
    assert not set(ARGUMENTS) & set(PROSE)
    assert all(word.isidentifier() and not keyword.iskeyword(word) for word in (*ARGUMENTS, *PROSE))
