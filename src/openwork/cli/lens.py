"""`openwork lens`, `tune-lens`, `answer-depth` and `patchscope`: what a network would say from the middle of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from openwork.cli.command import DONE, Common, command, line_of
from openwork.cli.inquiry import Call, Inquiry, carried_out, exit_code, inquiry, summary
from openwork.cli.loading import open_network
from openwork.cli.options import Alpha, Claims, Memory, Model, Out, RealText, TrustRemoteCode
from openwork.cli.output import remark
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.lenses import Lens
    from openwork.network import Network
    from openwork.results.result import Result

Site = Annotated[
    str | None, typer.Option(help="Site or pattern, such as blocks.*.resid_mid; the stream behind each block else.")
]
Texts = Annotated[int, typer.Option(help="Texts that are read, a quarter of them held out.")]
Length = Annotated[int, typer.Option(help="Tokens of each text.")]
Folder = Annotated[Path | None, typer.Option(help="A lens that tune-lens wrote.")]
LINEARISED, LINEAR_LENGTH = 4, 48
"""Texts that a Jacobian lens is made from when none was saved, and their tokens."""


class Kind(StrEnum):
    """Which lens."""

    logit = "logit"
    tuned = "tuned"
    jacobian = "jacobian"


class Made(StrEnum):
    """Which lens is made."""

    tuned = "tuned"
    jacobian = "jacobian"
    attention = "attention"


class Colour(StrEnum):
    """What cells are coloured by."""

    probability = "probability"
    logit = "logit"
    rank = "rank"
    kl = "kl"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "lens")(lens)
    command(app, "tune-lens")(tune_lens)
    command(app, "patchscope")(patchscope)
    inquiry(app, "answer-depth")(answer_depth)


def lens(
    model: Model,
    text: Annotated[str, typer.Argument(help="The text to read.")],
    kind: Annotated[Kind | None, typer.Option(help="Which lens; logit, or what --tuned holds, unless given.")] = None,
    tuned: Folder = None,
    site: Site = None,
    colour: Annotated[Colour, typer.Option(help="What cells are coloured by.")] = Colour.probability,
    top: Annotated[int, typer.Option(help="Tokens that are kept of each cell.")] = 5,
    memory: Memory = "64MiB",
    out: Out = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    common: Common,
) -> int:
    """Show, at every layer and position of a text, what the network would say from there."""
    from openwork.lenses import Reading, read

    options = {"kind": kind, "tuned": tuned, "site": site, "top": top, "trust_remote_code": trust_remote_code}

    def run(tick: Callable[[float], None]) -> Result:
        net = open_network(model, common, trust_remote_code)
        return read(net, text, site, Reading(_chosen(net, kind, tuned, common), top, memory), tick=tick)

    def told(result: Result) -> RenderableType:
        from openwork.reports.token_grid import TokenGrid

        return Group(TokenGrid(result.table, colour.value), _by_layer(result))

    carried_out(Call("lens", line_of("lens", [model, text], options, common), out, common), run, told)
    return DONE


def tune_lens(
    model: Model,
    lens_out: Annotated[Path, typer.Argument(help="Folder that the lens is written to.")],
    kind: Annotated[Made, typer.Option(help="Learned maps, average Jacobians, or one map for each head.")] = Made.tuned,
    text: RealText = None,
    n: Texts = 96,
    length: Length = 96,
    site: Site = None,
    steps: Annotated[int, typer.Option(help="Of learning.")] = 250,
    rate: Annotated[float, typer.Option(help="Of learning at the first step.")] = 3e-3,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    memory: Memory = "64MiB",
    out: Out = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    common: Common,
) -> int:
    """Make a lens from texts, and say on held-out ones whether it is closer to the output than the logit lens."""
    options = {
        "kind": kind, "text": text, "n": n, "length": length, "site": site, "steps": steps, "rate": rate,
        "claims": claims, "alpha": alpha, "trust_remote_code": trust_remote_code,
    }  # fmt: skip

    def run(tick: Callable[[float], None]) -> Result:
        from openwork.lenses import Comparing, Linearising, Tuning, attention_lens, compare, jacobian_lens, tune
        from openwork.results.claims import Standard

        net = open_network(model, common, trust_remote_code)
        rows = corpus(net, text, n, length)
        learning = Tuning(steps, rate, seed=common.seed, memory=memory)
        method = Comparing(claims=claims, standard=Standard(alpha=alpha), seed=common.seed, memory=memory)
        # a texts' own quarter stays held out whatever the lens
        held = _held_out(len(rows), common.seed)
        learned = [row for i, row in enumerate(rows) if i not in held]
        rivals, base = {}, None
        if kind is Made.jacobian:
            made = jacobian_lens(net, learned[: 2 * LINEARISED], site, Linearising(), tick=lambda s: tick(s / 2))
        elif kind is Made.attention:
            base = attention_lens(net, learned[:2], site or "blocks.*.attn.z")
            made = tune(net, rows, held, method=learning, start=base, tick=lambda s: tick(s / 2))
        else:
            made = tune(net, rows, held, site, learning, tick=lambda s: tick(s / 4))
            shuffled = tune(net, rows, held, site, replace(learning, shuffled=True), tick=lambda s: tick((1 + s) / 4))
            rivals = {"a lens that learned from the output at other tokens": shuffled}
        made.save(lens_out)
        return compare(net, made, rows, held, None, method, base=base, rivals=rivals, tick=lambda s: tick((1 + s) / 2))

    line = line_of("tune-lens", [model, str(lens_out)], options, common)
    result = carried_out(Call("tune-lens", line, out, common), run)
    if not common.json:
        remark(f"lens: {lens_out}")
    return exit_code(result, claims > 0)


def patchscope(
    model: Model,
    source: Annotated[list[str], typer.Argument(help="Source prompts, two or more.")],
    target: Annotated[str, typer.Option(help="The prompt that the states are written into.")],
    site: Annotated[str, typer.Option(help="Where states are read; a site or pattern.")] = "blocks.*.resid_post",
    into: Annotated[str | None, typer.Option(help="Where they are written; the same site unless given.")] = None,
    at: Annotated[int, typer.Option(help="Position in the source prompts, from the end if negative.")] = -1,
    target_at: Annotated[int, typer.Option(help="Position in the target prompt.")] = -1,
    tokens: Annotated[int, typer.Option(help="Tokens that are written from there.")] = 8,
    reader: Annotated[str | None, typer.Option(help="Another network that reads the target prompt.")] = None,
    alpha: Alpha = 0.05,
    out: Out = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    common: Common,
) -> int:
    """Write what a network holds on some prompts into another prompt, and read what is said there."""
    options = {
        "target": target, "site": site, "into": into, "at": at, "target_at": target_at, "tokens": tokens,
        "reader": reader, "alpha": alpha, "trust_remote_code": trust_remote_code,
    }  # fmt: skip

    def run(tick: Callable[[float], None]) -> Result:
        from openwork.lenses import Scope
        from openwork.lenses import patchscope as scoped
        from openwork.results.claims import Standard

        net = open_network(model, common, trust_remote_code)
        other = None if reader is None else open_network(reader, common, trust_remote_code)
        scope = Scope(site, at, into, target_at, tokens, Standard(alpha=alpha), common.seed)
        return scoped(net, source, target, scope, target_net=other, tick=tick)

    def told(result: Result) -> RenderableType:
        table = Table("site", *(cut[:24] for cut in source), box=None)
        written = result.table["written" if tokens else "said"].to_numpy()
        for name, row in zip(result.table["site"].to_numpy().tolist(), written.tolist(), strict=True):
            table.add_row(name, *(repr(one) for one in row))
        return Group(table, summary(result))

    line = line_of("patchscope", [model, *source], options, common)
    carried_out(Call("patchscope", line, out, common), run, told)
    return DONE


def answer_depth(
    on: Inquiry,
    tuned: Folder = None,
    site: Annotated[
        str, typer.Option(help="Sites that are read, in order.")
    ] = "blocks.*.resid_pre|resid_mid|resid_post",
    share: Annotated[float, typer.Option(help="Of the network's own metric, from which the answer is there.")] = 0.5,
    alpha: Alpha = 0.05,
) -> Result:
    """At which layer can the answer be read, and not before?"""
    from openwork.lenses import LOGIT, Depth, Lens
    from openwork.lenses import answer_depth as found
    from openwork.results.claims import Standard

    made = LOGIT if tuned is None else Lens.load(tuned, on.net)
    method = Depth(made, share, Standard(alpha=alpha), on.seed)
    return found(on.net, on.task, site if tuned is None else None, method, untrained=_untrained(on), tick=on.tick)


def corpus(net: Network, source: Path | None, n: int, length: int) -> list[list[int]]:
    """Stretches of real text of one length, each with what the tokenizer puts in front of a text.

    Raises:
        BadInput: if the source holds too little text, or the network reads none.
    """
    from openwork.tasks.source import texts

    if n < 4 or length < 4:
        raise BadInput(f"expected at least four texts of four tokens; got {n} of {length}")
    longest = net.preparer.longest
    length = length if longest is None else min(length, longest)
    special = {*getattr(net.tokenizer, "all_special_ids", ())}
    found: list[list[int]] = []
    for _, text in texts(source):
        ids = net.encode(text)
        front = ids[:1] if ids[0] in special else []
        body, step = ids[len(front) :], length - len(front)
        # from each file a few stretches, so that no file fills the corpus
        starts = range(0, len(body) - step, max(step, (len(body) - step) // 4 or 1))
        found += [[*front, *body[first : first + step]] for first in starts]
        if len(found) >= n:
            return found[:n]
    if len(found) < 4:
        raise BadInput(f"expected text for {n} stretches of {length} tokens; {source} holds {len(found)}")
    return found


def _held_out(n: int, seed: int) -> frozenset[int]:
    from openwork.task import split_rows

    return split_rows(n, seed, 0.25)


def _chosen(net: Network, kind: Kind | None, folder: Path | None, common: Common) -> Lens:
    """The lens that was asked for: read from a folder, or made where that takes no learning."""
    from openwork.lenses import LOGIT, Lens, jacobian_lens

    if folder is not None:
        if kind is Kind.logit:
            raise BadInput("expected --kind tuned or jacobian with --tuned; the logit lens has nothing to load")
        made = Lens.load(folder, net)
        if kind is not None and made.kind != kind.value:
            raise BadInput(f"expected a {kind.value} lens in {folder}; it holds an {made.kind} lens")
        return made
    if kind is Kind.tuned:
        raise BadInput("expected --tuned FOLDER with --kind tuned; make one with openwork tune-lens MODEL FOLDER")
    if kind is Kind.jacobian:
        return jacobian_lens(net, corpus(net, None, LINEARISED, LINEAR_LENGTH))
    return LOGIT


def _untrained(on: Inquiry) -> Network | None:
    """A copy of an embedded network that has learned nothing."""
    from openwork import network, zoo

    if on.net.name not in zoo.names():
        return None
    module, tokenizer = zoo.untrained(on.net.name, on.seed)
    return network.open(module.to(on.net.device, on.net.dtype), tokenizer=tokenizer, name=f"{on.net.name}, untrained")


def _by_layer(result: Result) -> Table:
    """The means of a reading, site by site."""
    table = Table("site", "KL (nats)", "entropy (nats)", "same first token", "input still among the first", box=None)
    for i, site in enumerate(result.table["site"].to_numpy().tolist()):
        numbers = (float(result.table[f"{k}_by_site"][i]) for k in ("kl", "entropy", "agreement", "retention"))
        kl, entropy, agreement, retention = numbers
        table.add_row(site, f"{kl:.2f}", f"{entropy:.2f}", f"{agreement:.0%}", f"{retention:.0%}")
    return table
