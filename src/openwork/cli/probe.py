"""`openwork probe`, `mdl` and `concept`: what can be read off a network, and whether it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openwork.cli.command import DONE, REJECTED, Common, command, line_of
from openwork.cli.inquiry import Call, Inquiry, carried_out, inquiry, require_able
from openwork.cli.loading import open_network
from openwork.cli.options import Alpha, Model, Out, TrustRemoteCode
from openwork.cli.output import remark
from openwork.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

    from openwork.network import Network
    from openwork.probes import Labelled
    from openwork.results.result import Result
    from openwork.task import Task

SITES = ("embed", "blocks.*.resid_post")
ANSWER = "answer"
EXAMPLES = 64
"""Of a behaviour, whose answers `mdl` codes."""
NEXT_TOKEN_SHARE = 0.01
"""Of what the whole site is worth to the next token: the smallest effect of one direction that matters."""
OBSERVED = "the network was only observed: intervene on it"

Label = Annotated[
    str | None,
    typer.Option(help="What to read: bracket_depth, string, argument … of Python source; kind, role or a role of "
                 "templated sentences; a variable of a program of the zoo; or answer, that of the task."),
]  # fmt: skip
Own = Annotated[Path | None, typer.Option(help="A .jsonl file of your own labels: text with label or labels.")]
Sites = Annotated[list[str] | None, typer.Option(help="Site or pattern; again for more. The residual stream if none.")]
Text = Annotated[Path | None, typer.Option(help="File or folder of Python source; openwork's own unless given.")]
Places = Annotated[int, typer.Option(help="Labelled places at most, about half of them held out.")]
At = Annotated[str | None, typer.Option(help="Token group or position that is edited; see docs/probes.md.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "probe")(probe)
    command(app, "mdl")(mdl)
    inquiry(app, "concept")(concept)


def probe(
    model: Model = "py-4l",
    label: Label = None,
    labels: Own = None,
    site: Sites = None,
    form: Annotated[
        list[str] | None, typer.Option(help="linear, nonlinear, 2-sparse, 2-sparse by L1 …; again for more.")
    ] = None,
    use: Annotated[bool, typer.Option(help="Check whether the network uses what the best probe reads.")] = True,
    task: Annotated[
        str | None,
        typer.Option(help="Behaviour to check the use with; its own in the zoo, else the next token."),
    ] = None,
    at: At = None,
    n: Annotated[int, typer.Option(help="Examples of the behaviour, half of them held out.")] = 64,
    text: Text = None,
    places: Places = 4000,
    alpha: Alpha = 0.05,
    save: Annotated[Path | None, typer.Option(help="Folder for the best probe: safetensors and JSON.")] = None,
    out: Out = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    common: Common,
) -> int:
    """Read a label off every layer, against controls, and see whether the network uses what is read.

    Exit code 0 if the network uses what the best probe reads, or with --no-use if the label can be read; else 4.
    """
    forms = form or ["linear"]
    options = {
        "task": task, "n": n, "text": text, "label": label, "labels": labels, "site": site, "form": form, "at": at,
        "places": places, "alpha": alpha, "no_use": not use, "trust_remote_code": trust_remote_code,
    }  # fmt: skip

    def run(tick: Callable[[float], None]) -> Result:
        from openwork.probes import Check, Probing, check, form_of
        from openwork.probes import probe as probed

        net = open_network(model, common, trust_remote_code)
        labelled, behaviour = problem(net, label, labels, text, places, n, common.seed)
        method = Probing(tuple(form_of(name) for name in forms), alpha=alpha, seed=common.seed)
        if not use:
            found = probed(net, labelled, site or _sites(net), method, tick=tick)
        else:
            doing, using = _behaviour(net, labelled, behaviour, task, at, n, text, alpha, common.seed)
            found = check(net, labelled, doing, site or _sites(net), Check(method, using), tick=tick)
        if save is not None:
            from openwork.probes import train

            best = train(net, labelled, found.table.attrs["site"], method.forms[0], common.seed)
            remark(f"probe: {best.save(save)}")
        return found

    result = carried_out(Call("probe", line_of("probe", [model], options, common), out, common), run)
    answer = result.table.attrs["used" if use else "read"]
    return DONE if answer == "yes" else REJECTED


def mdl(
    model: Model = "py-4l",
    label: Label = None,
    labels: Own = None,
    site: Sites = None,
    text: Text = None,
    places: Places = 4000,
    alpha: Alpha = 0.05,
    out: Out = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    common: Common,
) -> int:
    """Count the bits that a label takes for someone who has the representations: the shorter, the easier to read.

    Exit code 0 if a site saves more than control tasks, the token alone and an untrained network; else 4.
    """
    options = {
        "label": label, "labels": labels, "site": site, "text": text, "places": places, "alpha": alpha,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip

    def run(tick: Callable[[float], None]) -> Result:
        from openwork.probes import Coding, describe

        net = open_network(model, common, trust_remote_code)
        labelled, _ = problem(net, label, labels, text, places, EXAMPLES, common.seed)
        return describe(net, labelled, site or _sites(net), Coding(alpha=alpha, seed=common.seed), tick=tick)

    result = carried_out(Call("mdl", line_of("mdl", [model], options, common), out, common), run)
    return DONE if any(finding.reasons == (OBSERVED,) for finding in result.findings) else REJECTED


def concept(
    on: Inquiry,
    label: Label = None,
    labels: Own = None,
    site: Sites = None,
    at: At = None,
    answer: Annotated[str | None, typer.Option(help="Only examples with this answer (text, or a token id).")] = None,
    examples: Annotated[int, typer.Option(help="Examples of a concept, and as many random ones, a vector.")] = 40,
    places: Places = 4000,
    claims: Annotated[int, typer.Option(help="How many concepts and sites to test by moving along them.")] = 3,
    alpha: Alpha = 0.05,
) -> Result:
    """Test whether a behaviour leans on concepts that labelled examples define (TCAV), against random concepts."""
    from openwork.probes import Concepts
    from openwork.probes import concept as tested
    from openwork.results.claims import Standard

    labelled, _ = problem(on.net, label, labels, None, places, len(on.task), on.seed)
    method = Concepts(
        _place(at), examples, answer=_token(on.net, answer), claims=claims, standard=Standard(alpha=alpha),
        seed=on.seed,
    )  # fmt: skip
    return tested(on.net, on.task, labelled, site or ["blocks.*.resid_post"], method, tick=on.tick)


def problem(
    net: Network, label: str | None, labels: Path | None, text: Path | None, places: int, n: int, seed: int
) -> tuple[Labelled, Task | None]:
    """The labelled places that a command asks for, and the behaviour of a network of the zoo.

    Raises:
        UnknownName: for a label that nothing here has.
        BadInput: for two sources of labels.
    """
    from openwork import zoo
    from openwork.probes import PYTHON, Labelled, Sample, from_jsonl, from_program, from_python, from_sentences
    from openwork.zoo.opening import is_member

    member = zoo.open(net.name) if is_member(net.name) else None
    task = None if member is None else member.task(n, seed)
    if labels is not None:
        if label is not None:
            raise BadInput(f"expected --label or --labels; got both, {label!r} and {labels}")
        return from_jsonl(labels, net, seed=seed), task
    if member is not None and member.program is not None and label != ANSWER:
        name = label or member.program.output.name
        return from_program(member.program, name, Sample(rows=256, places=places, seed=seed)), task
    if task is not None:
        if label not in (None, ANSWER):
            raise UnknownName.among("label of this network", label, [ANSWER])
        changed = "subject" if "subject" in task.clean.groups else None
        return Labelled.from_task(task, changed), task
    if label is None or label in PYTHON:
        return from_python(net, label or "bracket_depth", text, Sample(places=places, seed=seed)), None
    if text is not None:
        raise UnknownName.among("label of Python source", label, PYTHON)
    return from_sentences(net, label, Sample(rows=600, places=places, seed=seed)), None


def _behaviour(
    net: Network, labelled: Labelled, own: Task | None, name: str | None, at: str | None, n: int, text: Path | None,
    alpha: float, seed: int,
):  # fmt: skip
    """What the use is checked with: the task asked for, that of the network, or the next token."""
    from openwork import tasks
    from openwork.cli.study import reads_text
    from openwork.probes import Use, next_token
    from openwork.results.claims import Standard

    standard = Standard(alpha=alpha)
    if name is not None:
        task = tasks.make(name, net, n=n, seed=seed, source=text if reads_text(name) else None)
        require_able(net, task, seed)
    elif own is not None:
        task = own
    else:
        task = next_token(labelled, n, seed)
        standard = replace(standard, min_share=NEXT_TOKEN_SHARE)
        at = at or "last"
    groups = task.clean.groups
    default = next((group for group in ("asked", "subject") if group in groups), None)
    return task, Use(_place(at or default), standard=standard, seed=seed)


def _sites(net: Network) -> list[str]:
    """The residual stream where it has no other shape than a vector a token, embedding first."""
    return [pattern for pattern in SITES if pattern != "embed" or "embed" in net.sites]


def _place(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.removeprefix("-").isdigit() else text


def _token(net: Network, text: str | None) -> int | None:
    if text is None or text.isdigit():
        return None if text is None else int(text)
    from openwork.tasks.reader import Reader

    ids = Reader.of(net).body(text)
    if len(ids) != 1:
        raise BadInput(f"expected an answer of one token; {text!r} has {len(ids)}")
    return ids[0]
