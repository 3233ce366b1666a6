# pyright: reportOperatorIssue=false
"""Scenes of shapes: the same for ever, in one split alone, class independent of everything but shape."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from openwork.errors import BadInput, UnknownName
from openwork.pictures import Masked
from openwork.worlds.shapes import (
    CLASSES,
    COLOURS,
    CONCEPTS,
    PARTS,
    SPLITS,
    TEXTURES,
    Background,
    Blob,
    Clip,
    Scene,
    Shapes,
    Surface,
    Thing,
    draw_scene,
    masks,
    render,
    sheet,
    split_of,
)
from openwork.worlds.shapes.draws import Draws
from openwork.worlds.shapes.outlines import OUTLINES, Polygon

MANY = 600
SURFACES = (Surface("red"), Surface("blue"), Surface("white"))


def lone(kind="house", **changes):
    """One object on plain green."""
    return Scene(Background("plain", Surface("green")), (Thing(kind, 500, 500, 700, SURFACES, **changes),))


@pytest.fixture(scope="module")
def many():
    corpus = Shapes(count=MANY)
    return [corpus.scene(i) for i in range(MANY)]


def sha(*parts):
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else json.dumps(part, ensure_ascii=False).encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(
    ("split", "size", "wanted"),
    [
        ("train", 64, "3ecd6958529aaa9f"),
        ("find", 64, "28052c828f49584c"),
        ("held-out", 64, "f763966bc5a61124"),
        ("train", 48, "f817f9e417885af9"),
    ],
)
def test_a_seed_gives_the_same_pixels_for_ever(split, size, wanted):
    assert sha(Shapes(3, size, split).pixels(range(24)).numpy().tobytes()) == wanted


def test_a_seed_gives_the_same_masks_captions_questions_and_clips_for_ever():
    corpus = Shapes(3)
    labels = corpus.masks(range(12))
    clips = [corpus.clip(i) for i in range(6)]
    found = (
        sha(*(labels[category].numpy().astype(np.uint8).tobytes() for category in CONCEPTS)),
        sha(*(corpus.caption(i) for i in range(50))),
        sha(*([q.kind, q.text, q.answer, list(q.options)] for i in range(50) for q in corpus.questions(i))),
        sha(*(clip.pixels(48).tobytes() for clip in clips)),
        sha(*([q.text, q.answer] for clip in clips for q in clip.questions())),
    )
    assert found == (
        "e8bf86bb34604848",
        "430dec4ce77a72d1",
        "ecb0cf31b5330ac5",
        "1515d6b8a147f862",
        "13a888625fca902b",
    )


def test_draws_are_a_hash_of_their_key():
    digest = hashlib.shake_256(b"key|0").digest(512)
    assert Draws("key").below(1 << 32) == int.from_bytes(digest[-4:], "little")
    draws = Draws("many")
    counts = np.bincount([draws.below(7) for _ in range(7000)])
    assert len(counts) == 7
    assert abs(counts - 1000).max() < 150
    assert sorted(Draws("x").some_of("abcd", 4)) == list("abcd")


def test_it_is_a_corpus_with_masks():
    corpus = Shapes(count=20)
    assert isinstance(corpus, Masked)
    assert len(corpus) == 20
    assert corpus.pixels([3, 1]).shape == (2, 3, 64, 64)
    assert corpus.pixels([3, 1]).dtype == torch.uint8
    for category, found in corpus.masks([3, 1]).items():
        assert found.shape == (2, 64, 64)
        assert 0 <= int(found.min()) <= int(found.max()) <= len(corpus.concepts[category])
    assert [corpus.class_names[k] for k in corpus.classes([3, 1])] == [corpus.scene(3).kind, corpus.scene(1).kind]


def test_scene_i_does_not_depend_on_the_count_but_on_everything_else():
    assert Shapes(count=5).scene(4) == Shapes(count=500).scene(4)
    assert Shapes(1).scene(4) != Shapes(0).scene(4)
    assert Shapes(split="find").scene(4) != Shapes().scene(4)
    others = (Shapes(), Shapes(1), Shapes(size=48), Shapes(split="find"), Shapes(count=7))
    assert len({one.digest for one in others}) == 5


def test_no_scene_is_in_two_splits(many):
    assert sorted(digit for digits in SPLITS.values() for digit in digits) == list(range(10))
    assert {split_of(scene) for scene in many} == {"train"}
    for split in SPLITS:
        assert {split_of(draw_scene(str(i), split)) for i in range(200)} == {split}


def test_a_scene_survives_json(many):
    for scene in many[:300]:
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    clip = Shapes().clip(0)
    assert Clip.from_json(json.loads(json.dumps(clip.to_json()))) == clip


def test_classes_are_even_and_everything_else_varies(many):
    counts = Counter(scene.kind for scene in many)
    assert set(counts) == set(CLASSES)
    assert min(counts.values()) > 0.6 * MANY / len(CLASSES)
    for trait, n in (
        (lambda s: s.background.kind, 4),
        (lambda s: len(s.things), 3),
        (lambda s: bool(s.occluders), 2),
        (lambda s: s.things[s.main].mirrored, 2),
        (lambda s: s.things[s.main].surfaces[0].texture, len(TEXTURES)),
        (lambda s: s.things[s.main].surfaces[0].colour, len(COLOURS)),
    ):
        seen = Counter(map(trait, many))
        assert len(seen) == n
        assert min(seen.values()) > 0.03 * MANY


@pytest.mark.parametrize("what", ["colour", "texture"])
def test_colour_and_texture_say_nothing_of_the_class(many, what):
    names = {"colour": tuple(COLOURS), "texture": TEXTURES}[what]
    table = np.zeros((len(CLASSES), len(names)))
    for scene in many:
        value = getattr(scene.things[scene.main].surfaces[0], what)
        table[CLASSES.index(scene.kind), names.index(value)] += 1
    assert chi2_contingency(table)[1] > 0.01


def test_the_main_object_is_larger_than_the_others(many):
    for scene in many:
        main = scene.things[scene.main]
        assert all(main.scale > 1.5 * thing.scale for thing in scene.things if thing is not main)
        assert 400 <= main.x < 600
        assert 400 <= main.y <= 600


def test_parts_are_shared_between_classes_and_every_part_is_used():
    used = {kind: {one.part for one in outlines((0.0, 0.0, 0.0))} for kind, outlines in OUTLINES.items()}
    assert set(used) == set(CLASSES)
    assert set().union(*used.values()) == set(PARTS)
    classes = Counter(part for parts in used.values() for part in parts)
    shared = {part for part, n in classes.items() if n > 1}
    assert {"wheel", "window", "door", "ear", "eye", "wing", "tail", "leg", "fin"} <= shared
    assert all(len(parts & shared) >= 1 for parts in used.values())
    assert len({frozenset(parts) for parts in used.values()}) == len(CLASSES)


def test_every_polygon_is_convex_at_every_variation():
    rng = np.random.default_rng(0)
    for kind, outlines in OUTLINES.items():
        for _ in range(30):
            for one in outlines(rng.uniform(-1, 1, 3).tolist()):
                if not isinstance(one, Polygon):
                    assert min(one.radii) > one.width
                    continue
                corners = np.array(one.corners)
                sides = np.roll(corners, -1, 0) - corners
                after = np.roll(sides, -1, 0)
                turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
                assert (turns > 0).all() or (turns < 0).all(), (kind, one)


def test_smoothing_is_the_mean_over_the_pixel():
    coarse = render(lone(angle=17), 64).astype(float)
    fine = render(lone(angle=17), 256).astype(float).reshape(3, 64, 4, 64, 4).mean((2, 4))
    assert abs(coarse - fine).mean() < 1
    assert abs(coarse - fine).max() < 90


def test_a_mirrored_object_is_a_mirrored_picture():
    plain, mirrored = render(lone("dog"), 64), render(lone("dog", mirrored=True), 64)
    assert abs(plain.astype(int) - mirrored[:, :, ::-1]).max() <= 8
    assert abs(plain.astype(int) - mirrored).max() > 100


def test_light_dims_everything_alike():
    scene = lone()
    bright, dim = render(scene, 64).astype(float), render(replace(scene, light=500), 64)
    assert abs(dim - bright / 2).max() <= 1


def test_what_is_in_front_hides_what_is_behind():
    bar = Blob("box", 500, 500, 200, 2000, 0, Surface("black"))
    scene, covered = lone(), replace(lone(), occluders=(bar,))
    before, after = masks(scene, 64)["object"], masks(covered, 64)["object"]
    hidden = slice(26, 38)
    assert before[:, hidden].any()
    assert not after[:, hidden].any()
    assert (np.delete(before, np.s_[hidden], 1) == np.delete(after, np.s_[hidden], 1)).all()


def test_the_contact_sheet_shows_every_class(monkeypatch):
    monkeypatch.setattr(sheet, "COLUMNS", 7)
    monkeypatch.setattr(sheet, "LOOKED_AT", 230)
    corpus = Shapes(count=230)
    found = sheet.sheet(corpus)
    step = sheet.SIZE + sheet.GAP
    assert found.shape == ((len(CLASSES) + sheet.MASKED + 1) * step, 7 * step, 3)
    for k, kind in enumerate(CLASSES):
        first = next(scene for scene in map(corpus.scene, range(230)) if scene.kind == kind)
        tile = found[k * step : k * step + sheet.SIZE, : sheet.SIZE].transpose(2, 0, 1)
        assert (tile == render(first, sheet.SIZE)).all()
    with pytest.raises(BadInput, match="7 scenes of each class"):
        sheet.sheet(Shapes(count=20))


@pytest.mark.parametrize("size", [0, 31, 257])
def test_a_size_that_no_picture_has_is_refused(size):
    with pytest.raises(BadInput, match="size from 32 to 256"):
        render(lone(), size)
    with pytest.raises(BadInput, match="size from 32 to 256"):
        Shapes(size=size)


def test_bad_requests_say_what_was_expected():
    with pytest.raises(UnknownName, match="held-out"):
        Shapes(split="heldout")
    with pytest.raises(BadInput, match="a seed of 0 or more"):
        Shapes(seed=-1)
    with pytest.raises(BadInput, match="one scene or more"):
        Shapes(count=0)
    with pytest.raises(BadInput, match="from 0 to 9; got 10"):
        Shapes(count=10).pixels([10])
    with pytest.raises(UnknownName, match="green"):
        Surface("gren")
    with pytest.raises(UnknownName, match="stripes"):
        Surface("red", "stripe")
    with pytest.raises(UnknownName, match="house"):
        lone("hose")
    with pytest.raises(UnknownName, match="oval"):
        Blob("ovale", 0, 0, 100, 100, 0, SURFACES[0])
    with pytest.raises(UnknownName, match="gradient"):
        Background("gradients", SURFACES[0])
    with pytest.raises(BadInput, match="angle as a whole number from -360 to 360; got 400"):
        lone(angle=400)
    with pytest.raises(BadInput, match="3 variations"):
        lone(variation=(1, 2))
    with pytest.raises(BadInput, match="3 surfaces"):
        Thing("car", 500, 500, 500, SURFACES[:2])
    with pytest.raises(BadInput, match="one of 1 objects"):
        replace(lone(), main=1)
    with pytest.raises(BadInput, match=r"a record of Scene\.to_json"):
        Scene.from_json({"things": []})
    with pytest.raises(BadInput, match=r"a record of Clip\.to_json"):
        Clip.from_json({"scene": lone().to_json()})


def test_scenes_that_were_drawn_are_kept_as_they_were() -> None:
    corpus, fresh = Shapes(count=3), Shapes(count=3)
    for _ in range(2):
        pixels, found = corpus.pixels([2, 0]), corpus.masks([2, 0])
        assert torch.equal(pixels, fresh.pixels([2, 0]))
        assert all(torch.equal(found[name], mask) for name, mask in Shapes(count=3).masks([2, 0]).items())
        pixels[:] = 0
        found["part"][:] = 0
