"""What is said of scenes and clips is what they show."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from openwork.errors import BadInput, UnknownName
from openwork.worlds.shapes import (
    ACTIONS,
    CLASSES,
    COLOURS,
    Background,
    Clip,
    Event,
    Scene,
    Shapes,
    Surface,
    Thing,
    caption,
    masks,
    questions,
    seen,
    visible,
)

SURFACES = (Surface("red", "stripes"), Surface("blue"), Surface("white"))
N = 80


def thing(kind, x, y, scale=250, **changes):
    return Thing(kind, x, y, scale, SURFACES, **changes)


@pytest.fixture
def scene():
    """A car with a tree to the left and a dog below."""
    things = (thing("tree", 150, 480), thing("car", 560, 500, 500), thing("dog", 600, 850))
    return Scene(Background("gradient", Surface("yellow")), things, main=1)


@pytest.fixture(scope="module")
def asked():
    corpus = Shapes(count=N)
    return [(corpus.scene(i), corpus.questions(i)) for i in range(N)]


def answers(scene, kind):
    return [(q.text, q.answer) for q in questions(scene) if q.kind == kind]


def test_a_caption_says_what_is_where(scene):
    assert caption(scene) == (
        "a red striped car on a gradient yellow background, a small red striped tree to the left of it, "
        "a small red striped dog below it"
    )


def test_questions_about_a_scene_have_its_answers(scene):
    assert answers(scene, "object") == [("What is the largest object?", "car")]
    assert answers(scene, "colour") == [("What colour is the body of the car?", "red")]
    assert answers(scene, "texture") == [("What is the pattern of the car?", "stripes")]
    assert answers(scene, "background") == [("What colour is the background?", "yellow")]
    assert answers(scene, "count") == [("How many objects are there?", "3")]
    known = {
        "What is to the left of the car?": "tree",
        "What is below the car?": "dog",
        "What is to the right of the car?": "nothing",
        "What is above the car?": "nothing",
    }
    found = answers(scene, "relation")
    assert len(found) == 2
    assert all(known[text] == answer for text, answer in found)
    assert "nothing" in dict(found).values()


def test_as_many_questions_about_presence_are_answered_yes_as_no(asked):
    for scene, found in asked:
        presence = {q.answer: q.text.removeprefix("Is there a ").rstrip("?") for q in found if q.kind == "presence"}
        assert presence["yes"] in {one.kind for one in scene.things}
        assert presence["no"] not in {one.kind for one in scene.things}
    kinds = Counter(q.text for _, found in asked for q in found if q.kind == "presence" and q.answer == "no")
    assert len(kinds) > len(CLASSES) / 2


def test_what_is_there_can_be_seen(asked):
    for scene, found in asked:
        (there,) = (q.text.removeprefix("Is there a ").rstrip("?") for q in found if q.answer == "yes")
        assert (masks(scene, 64)["object"] == CLASSES.index(there) + 1).sum() >= 12


def test_the_right_answer_is_among_the_options_once(asked):
    for _, found in asked:
        for question in found:
            assert question.options.count(question.answer) == 1
            assert len(question.options) > 1


def test_sides_are_where_the_pixels_are(asked):
    agreed = []
    for scene, found in asked:
        shown = visible(scene, 64)
        middles = {
            one.kind: np.argwhere(shown == k).mean(0) for k, one in enumerate(scene.things) if (shown == k).any()
        }
        for question in found:
            if question.kind != "relation" or question.answer == "nothing":
                continue
            dy, dx = middles[question.answer] - middles[scene.kind]
            agreed.append(
                {"left": dx < 0, "right": dx > 0, "above": dy < 0, "below": dy > 0}[
                    next(word for word in ("left", "right", "above", "below") if word in question.text)
                ]
            )
    assert len(agreed) > N / 4
    assert np.mean(agreed) > 0.97


def test_what_is_hidden_is_not_counted(scene):
    hidden = replace(scene, things=(thing("tree", 560, 500, 100), *scene.things[1:]))
    assert [one.kind for one in seen(hidden)] == ["car", "dog"]
    assert answers(hidden, "count") == [("How many objects are there?", "2")]
    assert "tree" not in caption(hidden)


def test_the_first_frame_is_the_scene_and_events_follow_each_other(scene):
    clip = Clip(scene, (Event(1, "moves left"), Event(2, "grows")))
    assert len(clip) == 7
    assert clip.frame(0) == scene
    places = [clip.frame(i).things[1].x for i in range(7)]
    assert places == [560, 500, 440, 380, 380, 380, 380]
    scales = [clip.frame(i).things[2].scale for i in range(7)]
    assert scales[:4] == [250] * 4
    assert scales[3:] == sorted(set(scales))
    assert all(clip.frame(i).things[0] == scene.things[0] for i in range(7))


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_does_to_the_pixels_what_it_says(scene, action):
    clip = Clip(scene, (Event(2, action),))
    before, after = (np.argwhere(visible(clip.frame(i), 64) == 2) for i in (0, 3))
    dy, dx = after.mean(0) - before.mean(0)
    grown = len(after) / len(before)
    wanted = {
        "moves left": dx < -5,
        "moves right": dx > 5,
        "moves up": dy < -5,
        "moves down": dy > 2,
        "turns": abs(dx) < 2 and abs(dy) < 2 and {*map(tuple, before)} != {*map(tuple, after)},
        "grows": grown > 1.2,
        "shrinks": grown < 0.8,
    }
    assert wanted[action]


def test_clips_ask_what_comes_first(scene):
    clip = Clip(scene, (Event(1, "moves left"), Event(0, "grows")))
    found = {q.text: q.answer for q in clip.questions()}
    assert found["What happens first?"] == "the car moves left"
    assert found["What happens last?"] == "the tree grows"
    assert found["What does the car do first?"] == "moves left"
    assert found["Is it true that the car moves left before the tree grows?"] == "yes"
    assert found["Is it true that the tree grows before the car moves left?"] == "no"


def test_the_opposite_order_has_the_opposite_answers_and_the_same_ends(scene):
    clip = Clip(scene, (Event(1, "moves left"), Event(0, "grows")))
    other = clip.reordered()
    assert other.frame(0) == clip.frame(0)
    assert other.frame(6) == clip.frame(6)
    assert other.frame(3) != clip.frame(3)
    first, last = ({q.text: q.answer for q in one.questions()} for one in (clip, other))
    for text in set(first) & set(last):
        assert first[text] != last[text]
    assert len(set(first) & set(last)) >= 4


def test_drawn_clips_have_two_different_events_of_objects_that_can_be_seen():
    corpus = Shapes(count=40)
    pairs = Counter()
    for i in range(40):
        clip = corpus.clip(i)
        one, other = clip.events
        assert one.action != other.action
        assert all(clip.scene.things[event.thing] in seen(clip.scene) for event in clip.events)
        pairs[one.thing == other.thing] += 1
    assert min(pairs.values()) > 6


def test_bad_clips_say_what_was_expected(scene):
    with pytest.raises(UnknownName, match="moves left"):
        Event(0, "move left")
    with pytest.raises(BadInput, match="events of the 3 objects"):
        Clip(scene, (Event(3, "grows"),))
    with pytest.raises(BadInput, match="frame from 0 to 3"):
        Clip(scene, (Event(0, "grows"),)).frame(4)


def test_colours_in_answers_are_names_of_the_world(asked):
    assert {q.answer for _, found in asked for q in found if q.kind in ("colour", "background")} == set(COLOURS)
