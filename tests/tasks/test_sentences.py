"""Behaviours on templated English: made for any word-level tokenizer, refused where a word is no token."""

from __future__ import annotations

import pytest
import torch

from openwork.errors import BadInput
from openwork.task import Task
from openwork.tasks import ACCURACY, SENTENCES, gate, later_minus_earlier, make
from openwork.worlds.sentences import vocabulary

N = 12


class Words:
    """A token for each word of templated English, and one in front."""

    def __init__(self, begin: tuple[str, ...] = ("<s>",), lacking: tuple[str, ...] = ()):
        self.begin = list(begin)
        self.words = [*begin, *(word for word in vocabulary() if word not in lacking), "(", "1", "=", "<unk>"]
        self.ids = {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(word, self.ids["<unk>"]) for word in [*self.begin, *text.split()]]

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def __len__(self) -> int:
        return len(self.words)


class Network:
    """A network has the tokenizer, and encodes and decodes with it."""

    def __init__(self, tokenizer: Words):
        self.tokenizer, self.encode, self.decode = tokenizer, tokenizer.encode, tokenizer.decode


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


@pytest.fixture(scope="module")
def tasks(words) -> dict[str, Task]:
    return {name: make(name, words, n=N) for name in SENTENCES}


def prompt(words: Words, task: Task, row: int, corrupted: bool = False) -> str:
    return words.decode(list((task.corrupted if corrupted else task.clean).ids[row][1:]))


def labelled(words: Words, task: Task, row: int, label: str, corrupted: bool = False) -> list[str]:
    inputs = task.corrupted if corrupted else task.clean
    return [words.words[inputs.ids[row][p]] for p in inputs.groups[label][row]]


@pytest.mark.parametrize("name", SENTENCES)
def test_every_task_has_its_rows_groups_and_chance(words, tasks, name):
    task = tasks[name]
    assert task.name == name
    assert len(set(task.clean.ids)) == len(task) == N
    assert 0 < task.chance < 0.75
    assert task.description
    assert len(task.clean.groups) > 1
    assert all(ids[0] == 0 for ids in task.clean.ids)
    for row in range(N):
        assert len(task.clean.ids[row]) == len(task.corrupted.ids[row]) == task.at[row] + 1
        assert task.answer[row] != task.wrong[row]
        assert task.clean.groups["last"][row] == (task.at[row],)
        assert "<unk>" not in prompt(words, task, row)


@pytest.mark.parametrize("name", SENTENCES)
def test_a_network_a_seed_and_a_vocabulary_without_beginning_do(words, tasks, name):
    assert make(name, Network(words), n=N) == tasks[name]
    assert make(name, words, n=N, seed=1).clean != tasks[name].clean
    bare = make(name, Words(begin=()), n=N)
    assert bare.at == tuple(at - 1 for at in tasks[name].at)
    assert bare.clean.groups["last"] == tuple((at,) for at in bare.at)


def test_groups_name_the_words_they_say(words, tasks):
    for row in range(N):
        io, first, again = (labelled(words, tasks["ioi"], row, label) for label in ("IO", "S1", "S2"))
        assert first == again != io == [words.words[tasks["ioi"].answer[row]]]
        assert labelled(words, tasks["ioi"], row, "S2", corrupted=True) == io
        assert labelled(words, tasks["choice"], row, "stated") == labelled(words, tasks["choice"], row, "option")
        (start,) = labelled(words, tasks["greater_than"], row, "start")
        assert int(words.words[tasks["greater_than"].answer[row]]) == int(start) + 1
        assert labelled(words, tasks["fact"], row, "subject")[0] in prompt(words, tasks["fact"], row)


def test_years_are_scored_by_what_is_late_enough(words, tasks):
    task = tasks["greater_than"]
    batch = task.batch([0, 1])
    size = len(words)
    logits = torch.full((2, size), -30.0)
    # all on the first year that is right; half on the last that is wrong
    logits[0, task.answer[0]] = 0.0
    logits[1, task.answer[1] - 1] = logits[1, task.answer[1]] = 0.0
    assert batch.measure(task.metric, logits).tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    assert task.metric.unit == "probability"
    logits[1, task.answer[1] - 1] += 1
    assert batch.measure(gate(task), logits).tolist() == [1.0, 0.0]
    # the likeliest token is late enough without being the first that is
    logits[0, words.ids["99"]] = 5.0
    assert batch.measure(gate(task), logits).tolist() == [1.0, 0.0]
    # or is no year at all
    logits[0, words.ids["the"]] = 9.0
    assert batch.measure(gate(task), logits).tolist() == [0.0, 0.0]
    assert gate(tasks["ioi"]) is ACCURACY


def test_probability_on_other_words_counts_neither_way(words, tasks):
    task = tasks["greater_than"]
    logits = torch.full((1, len(words)), -30.0)
    logits[0, words.ids["the"]] = logits[0, task.answer[0]] = 0.0
    assert task.batch([0]).measure(task.metric, logits).tolist() == pytest.approx([0.5], abs=1e-4)


def test_order_needs_two_tokens_and_the_answer_among_them():
    with pytest.raises(BadInput, match="at least two tokens in order"):
        later_minus_earlier([3])
    with pytest.raises(BadInput, match="none twice"):
        later_minus_earlier([3, 4, 3])
    with pytest.raises(BadInput, match="every answer among"):
        later_minus_earlier([3, 4]).fn(torch.zeros(1, 6), torch.tensor([5]), torch.tensor([3]))


@pytest.mark.parametrize("name", ["ioi", "greater_than"])
def test_a_tokenizer_that_splits_words_is_refused(tokenizer, characters, name):
    for splitting in (tokenizer, characters):
        with pytest.raises(BadInput, match="a token for each word of templated English"):
            make(name, splitting, n=N)


def test_a_tokenizer_that_lacks_a_word_is_refused_and_the_word_named():
    with pytest.raises(BadInput, match="none for 'capital'"):
        make("fact", Words(lacking=("capital",)), n=100)


def test_no_more_examples_than_there_are(words):
    with pytest.raises(BadInput, match=r"fact: expected n of at most \d+, all different"):
        make("fact", words, n=400)
    with pytest.raises(BadInput, match="n of at least 2"):
        make("ioi", words, n=1)


def test_a_source_has_no_meaning(words, tmp_path):
    with pytest.raises(BadInput, match="ioi: expected no source"):
        make("ioi", words, n=N, source=tmp_path)
