"""What the rows of a training batch are."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import torch

from openwork.recipes.batches import IGNORED, SHORTEST_SPAN, Mix, training_batch
from openwork.recipes.brackets import invent_statement
from openwork.recipes.docstrings import Lexicon, invent_function

CONTEXT = 64
MIX = Mix(code=2, repeats=3, functions=1, statements=1)


def test_a_batch_depends_on_seed_and_step_alone(streams):
    first, again = (training_batch(streams, MIX, CONTEXT, seed=5, step=9) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    for seed, step in ((5, 10), (6, 9)):
        assert not torch.equal(training_batch(streams, MIX, CONTEXT, seed, step).inputs, first.inputs)


def test_every_row_begins_with_the_beginning_and_predicts_the_next_token(streams):
    batch = training_batch(streams, MIX, CONTEXT, seed=0, step=0)
    assert batch.inputs.shape == batch.targets.shape == (MIX.rows, CONTEXT)
    assert (batch.inputs[:, 0] == streams.tokenizer.bos_token_id).all()
    known = batch.targets[:, :-1] != IGNORED
    assert torch.equal(batch.inputs[:, 1:][known], batch.targets[:, :-1][known])


def test_rows_stand_in_their_streams(streams):
    batch = training_batch(streams, MIX, CONTEXT, seed=0, step=3)
    stream = " ".join(map(str, streams.train.tolist()))
    for row in batch.inputs[: MIX.code]:
        assert " ".join(map(str, row[1:].tolist())) in stream
    for row, source in ((5, streams.functions), (6, streams.statements)):
        assert " ".join(map(str, batch.inputs[row, 1:].tolist())) in " ".join(map(str, source.tolist()))


def test_repeated_rows_repeat_and_only_their_first_copy_is_not_learned(streams):
    special = set(streams.tokenizer.all_special_ids)
    for step in range(20):
        batch = training_batch(streams, Mix(code=0, repeats=1), CONTEXT, seed=1, step=step)
        ids, targets = batch.inputs[0, 1:].tolist(), batch.targets[0]
        span = int((targets == IGNORED).sum())
        assert SHORTEST_SPAN <= span < CONTEXT // 2
        assert ids[span:] == ids[: len(ids) - span]
        assert (targets[:span] == IGNORED).all()
        assert (targets[span:] != IGNORED).all()
        assert not special & set(ids)


def test_invented_functions_name_every_argument_in_order():
    lexicon = Lexicon.of(["def f(self, a, bc, d=1, e: int = 2): # some words to use here\n"] * 2)
    assert set(lexicon.names) == {"a", "bc", "d", "e"}
    lexicon = Lexicon(("one", "two", "three", "four", "five", "six", "seven", "eight"), lexicon.words)
    for seed in range(50):
        text = invent_function(lexicon, np.random.default_rng(seed))
        found = re.match(r'\s*def \w+\((.*)\):\n\s+"""(.*?)"""\n', text, flags=re.DOTALL)
        assert found is not None
        signature, docstring = found.groups()
        arguments = [part.split("=")[0].strip() for part in signature.split(",")]
        named = re.findall(r"^\s*(?::param |@param )?(\w+): ", docstring, flags=re.MULTILINE)
        assert named == [argument for argument in arguments if argument != "self"]
        assert 2 <= len(named) <= 7
        assert text.endswith("\n\n")


def test_invented_statements_close_what_they_open_and_use_all_brackets():
    lexicon = Lexicon(("one", "two", "three"), ("some", "words"))
    partner, seen = {")": "(", "]": "[", "}": "{"}, Counter()
    for seed in range(300):
        stack = []
        for character in invent_statement(lexicon, np.random.default_rng(seed)):
            if character in partner.values():
                stack.append(character)
            elif character in partner:
                assert stack.pop() == partner[character]
                seen[character] += 1
        assert not stack
    assert min(seen.values()) > 0.2 * sum(seen.values())
