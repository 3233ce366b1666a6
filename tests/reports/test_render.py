from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from openwork.errors import BadInput, CorruptFile
from openwork.reports import render
from openwork.store import read_json, write_arrays, write_json

EVIL = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>"
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """Everything in a page that could load or run something, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: tuple[str, dict[str, str | None]] = ("", {})
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open = (tag, dict(attrs))
        self.tags.append(self.open)

    def handle_endtag(self, tag: str) -> None:
        self.open = ("", {})

    def handle_data(self, data: str) -> None:
        tag, attributes = self.open
        if tag == "script" and attributes.get("type") != "application/json":
            self.scripts.append(data)
        elif tag not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.tags if a.get("id")]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("supported", "Supported"),
        ("rejected", "Rejected"),
        ("inconclusive", "Inconclusive"),
        ("running", "Unfinished"),
        ("cannot do the task", "The network cannot do the task"),
    ],
)
def test_the_verdict_comes_before_everything_else(verdict: str, words: str, written: Callable[..., Path]) -> None:
    page = Page(render(written(verdict)))
    text = page.text[page.text.index("openwork study ·") :]
    assert text.index(words) < min(text.index(later) for later in ("Does the network do the task?", "How to repeat it"))


def test_a_study_that_stops_at_the_gate_shows_nothing_it_did_not_measure(written: Callable[..., Path]) -> None:
    ids = Page(render(written("cannot do the task"))).ids()
    assert "gate" in ids
    assert not {"circuit", "validation", "effects", "roles", "clusters", "elsewhere"} & set(ids)


def test_every_part_of_a_whole_study_is_on_the_page(written: Callable[..., Path]) -> None:
    page = Page(render(written()))
    parts = {"verdict", "why", "circuit", "validation", "roles", "attention", "effects", "elsewhere", "clusters"}
    assert {*parts, "gate", "repeat"} <= set(page.ids())
    for said in ("0.91", "0.85 to 0.97", "500 random circuits", "previous token", "L2 H3", "p = 0.002", "the strongest",
                 "openwork study py-4l --task induction --seed 0", "ab" * 32, "names seen before"):  # fmt: skip
        assert said in page.text, said


def test_the_page_loads_nothing(written: Callable[..., Path]) -> None:
    path = render(written())
    page = Page(path)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        for name in LOADING & set(attributes):
            assert str(attributes[name]).startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
    assert not re.search(r"@import|url\(", path.read_text(encoding="utf-8"))


def test_only_the_styles_and_script_of_the_page_may_run(written: Callable[..., Path]) -> None:
    page = Page(render(written()))
    policy = next(str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_text_stays_text(written: Callable[..., Path]) -> None:
    folder = written(summary=EVIL, command=EVIL, text_name=EVIL)
    study = read_json(folder / "study.json")
    study["task"]["name"] = study["task"]["description"] = study["task"]["unit"] = EVIL
    study["model"]["name"] = EVIL
    study["effects"]["positions"] = [EVIL, *study["effects"]["positions"][1:]]
    for effect in study["effects"]["residual"]:
        effect["position"] = EVIL if effect["position"] == "first use" else effect["position"]
    for view in study["roles"]["attention"]:
        view["tokens"] = [EVIL, *view["tokens"][1:]]
    study["clusters"]["clusterings"][0]["clusters"][0]["tokens"] = [EVIL]
    write_json(folder / "study.json", study)
    page = Page(render(folder))
    assert [tag for tag, _ in page.tags].count("script") == 1 + len(study["roles"]["attention"])
    assert len(page.scripts) == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert EVIL in "".join(page.texts)


def test_pictures_are_described_in_words(written: Callable[..., Path]) -> None:
    html = render(written()).read_text(encoding="utf-8")
    described = re.findall(r"<svg[^>]*role=\"img\"[^>]*><title>([^<]+)</title><desc>([^<]+)</desc>", html)
    assert len(described) == html.count("<svg ") >= 7


def test_the_same_study_makes_the_same_page(written: Callable[..., Path]) -> None:
    folder = written()
    first = render(folder).read_bytes()
    assert render(folder).read_bytes() == first


def test_missing_damaged_and_foreign_studies_are_named(tmp_path: Path, written: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=r"study\.json"):
        render(tmp_path / "nowhere")
    folder = written(schema_version=99)
    with pytest.raises(CorruptFile, match="version 99"):
        render(folder)
    folder = written(seed="many")
    with pytest.raises(CorruptFile, match="seed"):
        render(folder)
    (folder / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorruptFile, match="does not parse"):
        render(folder)
    assert not (folder / "report.html").exists()


def test_arrays_that_do_not_fit_are_corrupt(written: Callable[..., Path]) -> None:
    folder = written()
    write_arrays(folder / "arrays.npz", {"attention/0": np.zeros((2, 2))})
    with pytest.raises(CorruptFile, match="attention/0"):
        render(folder)
