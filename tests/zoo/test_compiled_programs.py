"""Every compiled network against its program in plain Python, on all inputs or 10,000 random ones."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from openwork.zoo import compiled
from openwork.zoo.compiled import Compiled

LEAD = 10.0


@pytest.fixture(scope="module", params=compiled.names())
def member(request) -> Compiled:
    return compiled.open(request.param)


@torch.no_grad()
def logits_of(member: Compiled, rows) -> torch.Tensor:
    ids = torch.tensor(member.program.encode(rows))
    return torch.cat([member.network(part).logits for part in ids.split(2048)])


def asked(member: Compiled, rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, position, id of the answer) of every answer that the algorithm gives."""
    number = {word: i for i, word in enumerate(member.program.domain.words)}
    found = [
        (r, i, number[answer])
        for r, row in enumerate(rows)
        for i, answer in enumerate(member.program.algorithm(row))
        if answer is not None
    ]
    r, i, answer = torch.tensor(found).T
    return r, i, answer


def test_network_answers_as_the_algorithm_by_ten_nats(member):
    rows = list(member.program.rows())
    assert len(rows) >= 10_000 or len(rows) == len(list(member.program.domain.every()))
    r, i, answer = asked(member, rows)
    logits = logits_of(member, rows)[r, i]
    right = logits.gather(1, answer[:, None])[:, 0]
    best_other = logits.scatter(1, answer[:, None], -torch.inf).max(1).values
    assert float((right - best_other).min()) > LEAD - 0.01


def test_interpreter_answers_as_the_algorithm(member):
    program = member.program
    for row in islice(program.rows(), 50):
        output = program.interpret(row)[program.output.name]
        expected = program.algorithm(row)
        assert [program.word(v) for v, e in zip(output, expected, strict=True) if e] == [e for e in expected if e]


def test_task_asks_rows_whose_answers_differ(member):
    program = member.program
    task = program.task(64)
    words = program.domain.words
    for clean, corrupted, right, wrong, at in zip(
        task.clean.ids, task.corrupted.ids, task.answer, task.wrong, task.at, strict=True
    ):
        answers = [program.algorithm(tuple(words[i] for i in ids))[at] for ids in (clean, corrupted)]
        assert answers == [words[right], words[wrong]]
        assert right != wrong


def test_rows_of_a_task_do_not_repeat(member):
    assert len(set(member.program.task(64).clean.ids)) == 64


def test_looks_hold_on_the_task(member):
    """Where a head is said to look, it looks: attention from one group to the other is whole."""
    task = member.program.task(16)
    ids = torch.tensor(task.clean.ids)
    for look in member.known.looks:
        query, key = (torch.tensor(task.clean.groups[name])[:, 0] for name in (look.query, look.key))
        (head,) = look.site.index
        x = member.network.embed(ids, torch.arange(ids.shape[1])[None])
        with torch.no_grad():
            for block in member.network.blocks[: look.site.block]:
                x = block(x)
            attn = member.network.blocks[look.site.block].attn
            q, k = (f(x).unflatten(-1, (attn.heads, -1))[:, :, head] for f in (attn.q, attn.k))
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if member.program.causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        rows = torch.arange(len(ids))
        assert scores.softmax(-1)[rows, query, key].min() > 0.999
