from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from openwork import recipes


def test_list_and_card(call: Callable[..., Result]) -> None:
    from openwork import zoo

    listed = json.loads(call("zoo", "list", "--json").stdout)
    assert {"py-4l", "py-attn2"} <= {item["name"] for item in listed["embedded"]} <= {*zoo.names()}
    assert listed["known"]["compiled"] == zoo.members("compiled")
    assert "py-attn2" in call("zoo", "list").stdout
    card = json.loads(call("zoo", "card", "py-attn2", "--json").stdout)
    assert card == zoo.card("py-attn2")
    assert "seed" in call("zoo", "card", "py-attn2").stdout


def test_list_of_one_family_has_all_of_it(call: Callable[..., Result]) -> None:
    from openwork import zoo

    listed = json.loads(call("zoo", "list", "null", "--json").stdout)
    assert listed == {"embedded": [], "known": {"null": zoo.members("null")}}
    assert len(listed["known"]["null"]) >= 100
    done = call("zoo", "list", "nul")
    assert (done.exit_code, "null" in done.stderr) == (1, True)


def test_open_hides_the_answer_until_it_is_asked_for(call: Callable[..., Result]) -> None:
    hidden, shown = call("zoo", "open", "compiled/ioi"), call("zoo", "open", "compiled/ioi", "--answer")
    assert hidden.exit_code == shown.exit_code == 0
    assert "name mover" not in hidden.stdout
    assert "name mover" in shown.stdout
    told = json.loads(call("zoo", "open", "compiled/ioi", "--answer", "--examples", "3", "--json").stdout)
    assert len(told["examples"]) == 3
    assert {"site": "blocks.2.attn.z[0]", "role": "name mover"}.items() <= told["circuit"]["nodes"][-2].items()


def test_a_method_asks_a_network_for_what_it_is_known_for(call: Callable[..., Result]) -> None:
    done = call("ablate", "compiled/histogram", "--n", "16", "--claims", "0", "--json", "--quiet")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["settings"]["task"] == "histogram"


def test_unknown_names_list_the_nearest(call: Callable[..., Result]) -> None:
    for words in (["card", "py-atn2"], ["build", "py-atn2"]):
        done = call("zoo", *words)
        assert done.exit_code == 1
        assert "py-attn2" in done.stderr


@pytest.mark.parametrize("done", [True, False])
def test_build_hands_on_its_options(
    done: bool, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, object] = {}

    def build(name: str, **options: object) -> recipes.Built:
        seen.update(options, name=name)
        return recipes.Built(name, tmp_path, 5, 10, tmp_path / "export" if done else None)

    monkeypatch.setattr(recipes, "build", build)
    result = call("zoo", "build", "py-4l", "--minutes", "2.5", "--resume", "--seed", "3", "--out", "here")
    assert seen == {"name": "py-4l", "minutes": 2.5, "resume": True, "out": Path("here"), "seed": 3, "device": "cpu"}
    assert result.exit_code == 0
    assert (str(tmp_path / "export") in result.stdout) is done
    assert ("step 5 of 10" in result.stderr) is not done
