"""The command that shows what units answer to: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Called

from openwork.cli import app

UNITS = ("shapes-cnn", "module:stem.out[0,1]")
FEW = ("--steps", "3", "--tests", "2", "--quiet")


def call(*words: str) -> Called:
    return CliRunner().invoke(app, ["see", *words])


def test_pictures_alone_are_written_with_their_page(tmp_path: Path) -> None:
    done = call(*UNITS, *FEW, "--alone", "--out", str(tmp_path / "out"))
    assert done.exit_code == 4, done.output  # two views are too few to support anything
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["axes"]["variables"]["pixels"] == ["unit", "channel", "y", "x"]
    assert record["settings"]["command"].startswith("openwork see shapes-cnn 'module:stem.out[0,1]'")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.extended
def test_pictures_stand_beside_images_and_the_test_of_both(tmp_path: Path) -> None:
    done = call(*UNITS, *FEW, "--count", "200", "--out", str(tmp_path / "out"))
    assert done.exit_code in (0, 4), done.output
    names = json.loads((tmp_path / "out" / "result.json").read_text())["axes"]["variables"]
    assert {"best", "example_picture", "examples_accuracy", "picture_accuracy"} <= set(names)
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png;base64,") > 20


@pytest.mark.parametrize("how", ["dream", "caricature", "inversion"])
def test_whole_sites_are_seen_from_a_picture(how: str) -> None:
    done = call("shapes-cnn", "module:stem.out", "--how", how, "--count", "3", "--json", *FEW[:2], "--tests", "0", "-q")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"]["method"].lower().endswith(how)


@pytest.mark.parametrize("how", ["maco", "accentuation"])
def test_units_are_seen_by_other_methods(how: str) -> None:
    done = call(*UNITS, "--how", how, "--alone", "--count", "3", "--steps", "2", "--tests", "0", "-q")
    assert done.exit_code == 0, done.output


def test_a_row_that_is_not_there_is_refused() -> None:
    done = call("shapes-cnn", "module:stem.out", "--how", "dream", "--row", "9", "--count", "3", "-q")
    assert done.exit_code == 1
    assert "--row below the 3" in done.output


def test_transparency_goes_with_ascent_alone() -> None:
    done = call(*UNITS, "--how", "maco", "--alone", "--transparent", "--count", "3", "-q")
    assert done.exit_code == 1
    assert "--how ascent" in done.output


def test_a_text_model_is_refused() -> None:
    done = call("py-attn2", "logits[0]", "--alone", "-q")
    assert done.exit_code == 1
    assert "reads images" in done.output


def test_an_unknown_unit_is_refused() -> None:
    done = call("shapes-cnn", "module:stems.out[0]", "--alone", "-q")
    assert done.exit_code == 1
    assert "module:stem.out" in done.output


def test_a_corpus_that_is_too_small_is_told_before_pictures_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import openwork.vision.synthesis.visualise as module

    monkeypatch.setattr(module, "visualise", lambda *args, **more: pytest.fail("pictures were made"))
    done = call("shapes-cnn", "logits[0]", "--count", "12", "-q")
    assert done.exit_code == 1
    assert "--alone" in done.stderr
