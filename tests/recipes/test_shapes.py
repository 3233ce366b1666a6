"""The recipes of the picture models: steps of seed and step alone, views that keep the class, folders that open."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.pictures import ImageFormat
from openwork.recipes import shapes
from openwork.recipes.catalogue import RECIPES
from openwork.recipes.export import write_images
from openwork.recipes.recipe import Descent, Recipe, generator
from openwork.recipes.shapes import FORMAT, SHAPES_RECIPES, ShapesRecipe, bare, viewed
from openwork.recipes.shapes_card import make_card, right, traits
from openwork.recipes.state import State
from openwork.recipes.train import train
from openwork.worlds.shapes import CLASSES, Shapes, split_of
from openwork.zoo.convolution import Residual, ResidualConfig

RUN = {"command": "openwork zoo build x", "seed": 0, "device": "cpu", "threads": 1, "compiled": False}


def tiny() -> Residual:
    return Residual(ResidualConfig(classes=len(CLASSES), widths=(4, 4), blocks=(1, 1)))


@pytest.fixture
def recipe() -> ShapesRecipe:
    return ShapesRecipe("tiny", tiny, steps=4, descent=Descent(warmup=1, decay=2), scenes=4, every=2)


@pytest.fixture
def few(monkeypatch):
    """Fewer scenes to measure on."""
    monkeypatch.setattr(shapes, "ASKED", 20)
    shapes._asked.cache_clear()
    yield
    shapes._asked.cache_clear()


def test_both_models_have_a_recipe():
    assert [one.name for one in SHAPES_RECIPES] == ["shapes-cnn", "shapes-vit"]
    assert {one.name for one in SHAPES_RECIPES} <= set(RECIPES)
    assert all(isinstance(one, Recipe) for one in SHAPES_RECIPES)


def test_a_step_depends_on_seed_and_step_alone(recipe):
    torch.manual_seed(0)
    network = recipe.network()
    assert torch.equal(recipe.loss(network, 2, 0), recipe.loss(network, 2, 0))
    assert not torch.equal(recipe.loss(network, 2, 0), recipe.loss(network, 3, 0))
    assert not torch.equal(recipe.loss(network, 2, 0), recipe.loss(network, 2, 1))


def test_no_scene_is_drawn_twice_and_all_are_of_the_train_split(recipe, monkeypatch):
    drawn: list[int] = []

    class Spy(Shapes):
        def scene(self, i: int):
            drawn.append(i)
            found = super().scene(i)
            assert split_of(found) == "train"
            return found

    monkeypatch.setattr(shapes, "Shapes", Spy)
    network = recipe.network()
    for seed in (0, 1):
        for step in range(recipe.steps):
            recipe.loss(network, step, seed)
    assert len(drawn) == len(set(drawn)) == 2 * recipe.steps * recipe.scenes


def test_views_are_shifted_and_mirrored_copies():
    pixels = Shapes().pixels(range(6))
    found = viewed(pixels, 3, 2, generator(0, 0))
    assert found.shape == (18, 3, 64, 64)
    padded = torch.nn.functional.pad(pixels.float() / 255, (2, 2, 2, 2), mode="replicate")
    ways = set()
    for k, view in enumerate(found):
        matches = {
            (mirrored, down, along)
            for mirrored in (False, True)
            for down in range(5)
            for along in range(5)
            if torch.equal(view.flip(-1) if mirrored else view, padded[k % 6, :, down : down + 64, along : along + 64])
        }
        assert matches
        ways |= matches
    assert len(ways) > 9
    assert {way[0] for way in ways} == {False, True}


def test_a_view_without_shift_is_the_image_or_its_mirror_image():
    pixels = Shapes().pixels(range(8))
    for view, image in zip(viewed(pixels, 1, 0, generator(0, 1)), pixels.float() / 255, strict=True):
        assert torch.equal(view, image) or torch.equal(view, image.flip(-1))


def test_bare_scenes_keep_the_main_object_and_nothing_else():
    corpus = Shapes(count=40)
    for i in range(40):
        scene = corpus.scene(i)
        found = bare(scene)
        main = scene.things[scene.main]
        assert found.kind == scene.kind
        assert len(found.things) == 1
        assert not found.occluders
        assert replace(found.things[0], surfaces=main.surfaces) == main
        surfaces = (*found.things[0].surfaces, found.background.surface)
        assert all(surface.texture == "plain" for surface in surfaces)
        assert found.background.surface.colour == scene.background.surface.colour


def test_bare_scenes_give_way_to_whole_ones(recipe):
    eased = replace(recipe, easy=0.5, steps=100, scenes=10)
    assert [eased._bare(step) for step in (0, 25, 35, 50, 99)] == [10, 10, 6, 0, 0]
    assert [recipe._bare(step) for step in (0, 3)] == [0, 0]


def test_traits_are_those_of_the_main_object():
    scene = Shapes().scene(1)
    main = scene.things[scene.main]
    found = traits(scene)
    assert (found["class"], found["texture"]) == (main.kind, main.surfaces[0].texture)
    assert float(found["scale"][:3]) <= main.scale / 1000 < float(found["scale"][-3:])


def test_a_card_counts_right_answers_by_trait(recipe):
    network = recipe.network().eval()
    card = make_card("tiny", network, FORMAT, {"seed": 0}, n=60)
    held = Shapes(split="held-out", count=60)
    answers = right(network, FORMAT, held.pixels(range(60)), held.classes(range(60)))
    assert card["held_out"]["accuracy"] == pytest.approx(float(answers.float().mean()), abs=1e-4)
    for values in card["by"].values():
        assert sum(one["n"] for one in values.values()) == 60
        assert sum(one["n"] * one["accuracy"] for one in values.values()) == pytest.approx(int(answers.sum()), abs=0.1)


@pytest.mark.parametrize("made", [tiny, shapes.vision_transformer])
def test_a_run_is_exported_as_a_folder_that_opens_with_its_image_format(
    made: Callable[[], torch.nn.Module], recipe, few, monkeypatch, tmp_path
):
    monkeypatch.setattr(shapes, "HELD_OUT", 40)
    chosen = replace(recipe, made=made)
    state = train(chosen, tmp_path / "run", minutes=5.0, resume=False)
    assert isinstance(state, State)
    assert [record["step"] for record in state.curve] == [0, 2]
    assert all(0 <= record["find_accuracy"] <= 1 for record in state.curve)
    chosen.export(state, tmp_path / "run", tmp_path / "export", RUN)
    assert json.loads((tmp_path / "export" / "card.json").read_text())["held_out"]["n"] == 40
    assert "is right in" in (tmp_path / "export" / "README.md").read_text()
    net = ow.open(tmp_path / "export")
    assert net.images == FORMAT
    pixels = Shapes(split="held-out", count=4).pixels(range(4)).float() / 255
    x = FORMAT.encode(pixels)
    with torch.no_grad():
        wanted = state.network.eval()(pixel_values=x).logits
    torch.testing.assert_close(net.run(x).logits, wanted, atol=0.02, rtol=0.02)


def test_a_run_cut_short_goes_on_as_if_it_had_not_been(recipe, few, tmp_path):
    whole = train(recipe, tmp_path / "whole", minutes=5.0, resume=False)
    train(
        replace(recipe, steps=2, descent=replace(recipe.descent, decay=0)), tmp_path / "cut", minutes=5.0, resume=False
    )
    plain = replace(recipe, descent=replace(recipe.descent, decay=0))
    again = train(plain, tmp_path / "cut", minutes=5.0, resume=True)
    straight = train(plain, tmp_path / "straight", minutes=5.0, resume=False)
    for one, other in zip(again.network.parameters(), straight.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.step == again.step == 4


def test_an_image_format_that_the_file_cannot_say_is_refused(tmp_path):
    for images in (ImageFormat(None), ImageFormat((8, 8), order="BGR")):
        with pytest.raises(BadInput, match="RGB images of one size"):
            write_images(images, tmp_path)
