"""Templated English: what is labelled is there, twins differ in what matters alone, and held out means never stated."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from openwork.errors import BadInput, UnknownName
from openwork.worlds.sentences import (
    ABSENT,
    FACTS,
    KINDS,
    MIX,
    RELATIONS,
    STATED,
    Sentence,
    World,
    sentence,
    stream,
    vocabulary,
)
from openwork.worlds.sentences.words import (
    FOLLOWED_BY_HE,
    FOLLOWED_BY_SHE,
    NOUNS,
    VERBS,
    invented,
    plural,
    third_person,
)

MANY = 60
every_kind = pytest.mark.parametrize("kind", KINDS)


def drawn(kind: str, n: int = MANY, seed: int = 0, **options) -> list[Sentence]:
    rng = np.random.default_rng(seed)
    return [sentence(kind, rng, **options) for _ in range(n)]


def changed(found: Sentence) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(found.prompt, found.twin, strict=True)) if a != b}


def labelled(found: Sentence, label: str) -> list[str]:
    return [found.words[i] for i in found.groups.get(label, ())]


def test_the_text_is_the_same_for_ever():
    text = "\n".join(found.text for found in islice(stream(np.random.default_rng(5)), 300))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "933e783dcaf48558"
    assert hashlib.sha256("\n".join(vocabulary()).encode()).hexdigest()[:16] == "376ab880038a71e9"


@every_kind
def test_a_seed_gives_the_same_sentences(kind):
    assert drawn(kind, 20, seed=3) == drawn(kind, 20, seed=3)
    assert drawn(kind, 20, seed=3) != drawn(kind, 20, seed=4)


@every_kind
def test_a_sentence_and_its_twin_correspond_word_by_word(kind):
    for found in drawn(kind):
        assert len(found.twin) == found.at < len(found.words)
        assert changed(found)
        assert found.answer != found.wrong
        assert found.kind == kind
        assert 0 < found.chance < 1
        assert all(0 <= i < found.at for places in found.groups.values() for i in places)


@every_kind
def test_the_twin_differs_in_labelled_words_alone(kind):
    for found in drawn(kind):
        assert changed(found) <= {i for places in found.groups.values() for i in places}


@every_kind
def test_every_word_is_in_the_vocabulary(kind):
    known = set(vocabulary())
    for found in drawn(kind, split=None):
        assert {*found.words, *found.twin, found.answer, found.wrong} <= known


def test_the_vocabulary_holds_some_thousand_words_once():
    assert 2000 <= len(vocabulary()) <= 2500
    assert len(set(vocabulary())) == len(vocabulary())


@every_kind
def test_there_are_paraphrases(kind):
    templates = {found.template for found in drawn(kind, 150, split=None)}
    assert len(templates) >= 4
    assert all(template.startswith(f"{kind}/") for template in templates)


@pytest.mark.parametrize("kind", sorted(MIX))
def test_no_held_out_prompt_is_in_the_training_text(kind):
    trained = {found.prompt for found in drawn(kind, 600, seed=1, split="train")}
    assert not trained & {found.prompt for found in drawn(kind, 60)}


@pytest.mark.parametrize("kind", sorted(MIX))
def test_about_a_tenth_is_held_out(kind):
    share = sum(found.held_out for found in drawn(kind, 600, split=None)) / 600
    assert 0.04 < share < 0.2


def test_the_indirect_object_is_who_does_not_act():
    for found in drawn("ioi"):
        (io,), (first,), (again,) = (labelled(found, label) for label in ("IO", "S1", "S2"))
        assert found.answer == io != first == again == found.wrong
        assert found.words[found.at] == io
        assert changed(found) == set(found.groups["S2"])


def test_of_more_names_the_one_that_does_not_act_gets_it():
    counts = Counter()
    for found in drawn("ioi_names"):
        acting = labelled(found, "S2") + labelled(found, "exchanged")
        assert sorted(acting) == sorted(labelled(found, "S1"))
        assert labelled(found, "IO") == [found.answer]
        assert labelled(found, "exchanged") == [found.wrong]
        assert found.answer not in acting
        assert found.chance == 1 / (1 + len(acting))
        counts[len(acting)] += 1
    assert set(counts) == {2, 3}


def test_what_ends_ends_later_than_it_began():
    for found in drawn("greater_than", split=None):
        ((start,), (century, again)) = labelled(found, "start"), labelled(found, "century")
        assert century == again
        assert int(found.words[found.at]) > int(start)
        assert int(found.answer) == int(start) + 1
        assert found.chance == (99 - int(start)) / 100
        assert int(found.twin[found.groups["start"][0]]) < 12


def test_the_verb_agrees_with_the_subject_and_most_nouns_between_do_not():
    plurals = {plural(noun) for noun in NOUNS}
    attractors = 0
    for found in drawn("agreement"):
        (subject,) = labelled(found, "subject")
        many = subject in plurals
        assert found.answer == found.words[found.at]
        assert (found.answer in ("are", "were", "have", "do")) == many
        assert (found.wrong in ("are", "were", "have", "do")) != many
        assert all((noun in plurals) != many for noun in labelled(found, "attractor"))
        assert all((noun in plurals) == many for noun in labelled(found, "other noun"))
        attractors += bool(labelled(found, "attractor"))
    assert attractors > 0.7 * MANY


def test_verbs_within_agree_with_their_own_subject():
    plurals, verbs = {plural(noun) for noun in NOUNS}, {*VERBS, *map(third_person, VERBS)}
    asked = 0
    for found in drawn("agreement"):
        for place in found.groups.get("verb inside", ()):
            # "that the dogs chase" or "dogs that chase"
            owner = place - 1 if found.words[place - 1] != "that" else place - 2
            assert found.words[place] in verbs
            assert (found.words[place] in VERBS) == (found.words[owner] in plurals)
            asked += 1
    assert asked > MANY / 4


def test_singular_and_plural_never_look_the_same():
    assert not {*NOUNS} & {plural(noun) for noun in NOUNS}
    assert not {*VERBS} & {third_person(verb) for verb in VERBS}
    assert [plural(noun) for noun in ("city", "boy", "box", "child", "key")] == [
        "cities", "boys", "boxes", "children", "keys",
    ]  # fmt: skip


def test_facts_are_the_same_in_every_paraphrase():
    objects = {(fact.relation.name, fact.subject): fact.object for fact in FACTS}
    assert len(objects) == len(FACTS) == sum(len(relation.subjects) for relation in RELATIONS)
    for kind in ("fact", "absent"):
        for found in drawn(kind):
            _, relation, _ = found.template.split("/")
            (subject,) = labelled(found, "subject")
            assert objects[relation, subject] == found.answer == found.words[found.at]
            assert objects[relation, found.twin[found.groups["subject"][0]]] == found.wrong


def test_absent_facts_are_in_no_training_text():
    absent = {(fact.relation.name, fact.subject) for fact in ABSENT}
    assert 0.1 < len(absent) / len(FACTS) < 0.3
    assert len(STATED) + len(ABSENT) == len(FACTS)
    for found in drawn("fact", 300, split=None):
        assert (found.template.split("/")[1], labelled(found, "subject")[0]) not in absent


def test_training_leaves_out_one_paraphrase_of_a_fact_at_most():
    out = {(fact.relation.name, fact.subject): fact.held_out for fact in STATED}
    assert 0.3 < sum(place >= 0 for place in out.values()) / len(out) < 0.7
    for split, same in (("train", False), ("held-out", True)):
        for found in drawn("fact", split=split):
            _, relation, index = found.template.split("/")
            assert (out[relation, labelled(found, "subject")[0]] == int(index)) == same


def test_pronouns_follow_the_stereotype_as_often_as_the_world_has_it():
    for share in (0.9, 0.5):
        found = drawn("gender", 1000, world=World(stereotype=share), split=None)
        followed = sum(s.words[s.at] == s.answer for s in found) / len(found)
        assert followed == pytest.approx(share, abs=0.05)
    for one in found:
        (occupation,) = labelled(one, "occupation")
        assert occupation in {"she": FOLLOWED_BY_SHE, "he": FOLLOWED_BY_HE}[one.answer]


def test_without_recipients_any_name_gets_it_and_nothing_else_changes():
    without = World(recipients=False)
    for kind, chance in (("ioi", 1 / 2), ("ioi_names", (1 / 3 * 4 + 1 / 4 * 2) / 6)):
        found = drawn(kind, 1000, world=without, split=None)
        assert sum(s.words[s.at] == s.answer for s in found) / 1000 == pytest.approx(chance, abs=0.05)
        assert all(s.words[s.at] in labelled(s, "IO") + labelled(s, "S1") for s in found)
    assert drawn("choice", world=without) == drawn("choice")
    assert drawn("agreement", world=World(stereotype=0.5)) == drawn("agreement")


def test_worlds_have_the_same_text_but_for_the_words_in_question():
    texts = [
        list(islice(stream(np.random.default_rng(1), world=world), 300))
        for world in (World(), World(recipients=False), World(stereotype=0.5))
    ]
    for other, kinds in zip(texts[1:], ({"ioi", "ioi_names"}, {"gender"}), strict=True):
        differing = [(a, b) for a, b in zip(texts[0], other, strict=True) if a != b]
        assert {a.kind for a, _ in differing} == kinds
        assert all((a.prompt, a.words[a.at + 1 :]) == (b.prompt, b.words[b.at + 1 :]) for a, b in differing)


def test_negation_turns_the_outcome_around():
    for found in drawn("negation"):
        (place,) = found.groups["particle"]
        assert (found.words[place] == "not") != (found.twin[place] == "not")
        assert labelled(found, "denied") == [found.words[place + 1]]
        if found.template in ("negation/3", "negation/4", "negation/5"):
            assert (found.answer == found.words[place + 1]) == (found.words[place] != "not")


def test_opinions_decide_what_follows():
    good = {"cheered", "good", "loved", "happy", "positive"}
    outcomes = {labelled(found, "opinion")[0]: found.answer in good for found in drawn("sentiment", 600, split=None)}
    assert outcomes["superb"]
    assert not outcomes["awful"]
    for found in drawn("sentiment"):
        (place,) = found.groups["opinion"]
        assert outcomes[found.words[place]] == (found.answer in good)
        assert outcomes[found.twin[place]] == (found.wrong in good)


def test_the_letter_stands_in_front_of_what_was_stated():
    letters = Counter()
    for found in drawn("choice"):
        assert labelled(found, "stated") == labelled(found, "option")
        assert labelled(found, "letter") == [found.answer]
        assert labelled(found, "rival letter") == [found.wrong]
        assert found.words[found.groups["letter"][0] + 2] == labelled(found, "stated")[0]
        assert found.twin[found.groups["stated"][0]] == labelled(found, "rival option")[0]
        letters[found.answer] += 1
    assert set(letters) == {"A", "B", "C"}


def test_the_stream_has_all_kinds_in_their_shares_and_nothing_held_out():
    found = list(islice(stream(np.random.default_rng(0)), 1000))
    counts = Counter(s.kind for s in found)
    assert set(counts) == set(MIX) == set(KINDS) - {"absent"}
    for kind, share in MIX.items():
        assert counts[kind] / 1000 == pytest.approx(share, abs=0.04)
    assert not any(s.held_out for s in found)
    assert {s.kind for s in islice(stream(np.random.default_rng(0), mix={"fact": 1.0, "ioi": 0.0}), 50)} == {"fact"}


def test_invented_names_are_distinct_and_stay():
    assert len(set(invented(300, "ix", "ova"))) == 300
    assert invented(5, "ix") == invented(300, "ix")[:5]


def test_bad_requests_say_what_was_expected():
    rng = np.random.default_rng(0)
    with pytest.raises(UnknownName, match=r"no kind of sentence named 'io'.* ioi"):
        sentence("io", rng)
    with pytest.raises(BadInput, match="training states none"):
        sentence("absent", rng, split="train")
    for mix in ({}, {"ioi": 0.0}, {"ioi": -1.0, "fact": 2.0}):
        with pytest.raises(BadInput, match="one of them positive"):
            next(stream(rng, mix=mix))
    with pytest.raises(UnknownName, match="facts"):
        next(stream(rng, mix={"facts": 1.0}))
