"""Replay of single tokens: only the blocks, positions and logits that an edit can change and the metric can see.

Rows (one cell on one example) join the pass at the block of their first edit. Each block is called on all their tokens
as one long row; attention takes them apart again (see `openwork.network.replay.ragged`). Of the last block, and
wherever a mask hides things, only the tokens are computed from which the position that is read can still be reached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openwork.network.paths import leaves, read, replaced
from openwork.network.ports import AttentionPort
from openwork.network.replay.meeting import Meeting, meet
from openwork.network.replay.prefix import returning, take
from openwork.network.replay.ragged import Groups, Tokens, attend, group
from openwork.network.replay.recording import Recording
from openwork.network.replay.rows import Entry, Place, Rows
from openwork.network.replay.spread import for_tokens
from openwork.network.run import eagerly
from openwork.network.session import Session, Stop, Visit
from openwork.network.timeline import Span

if TYPE_CHECKING:
    from openwork.network.network import Network
    from openwork.network.replay.certificate import Suffixes


@dataclass(eq=False)
class Suffix:
    """Replays rows against one unedited run.

    Args:
        net: the network.
        plan: what its certificate says of its blocks and their arguments.
        base: the unedited run, with the outputs of all calls that its places skip.
        at: (example,) the position that is read.
        tokens: how many were computed by a block so far.
    """

    net: Network
    plan: Suffixes
    base: Recording
    at: Int[Tensor, " example"]
    tokens: int = 0
    _groups: dict[Any, Groups] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.base.blocks[0].hidden
        self.width, self.device = first.shape[1], first.device
        count = len(self.at)
        self.visible = [block.visible(count, self.width) for block in self.base.blocks]
        read_ = torch.zeros(count, self.width, dtype=torch.bool)
        read_[torch.arange(count), self.at] = True
        self.needed: list[Bool[Tensor, "example position"]] = [read_]
        for seen in reversed(self.visible):
            later = self.needed[0]
            self.needed.insert(0, later | (later[:, :, None] & seen).any(1))

    def run(self, rows: Rows) -> tuple[Float[Tensor, "row channel"], Int[Tensor, " row"]]:
        """Replay rows to the end of the last block.

        Returns:
            the stream behind the last block at the position that is read, and the rows that it is of: those whose edits
            reach it.
        """
        state = _State(torch.zeros(len(rows), self.width, dtype=torch.bool))
        with torch.no_grad():
            for number in range(min(rows.first), len(self.plan.stages)):
                self._block(number, rows, state)
        for entry in rows.streams(len(self.plan.stages)):
            state.write(entry.row, entry.position, entry.value.to(self.base.blocks[0].hidden))
        at = self.at[rows.example]
        alive = state.live[torch.arange(len(rows)), at].nonzero().flatten()
        if not len(alive):
            return self.base.blocks[0].hidden[:0, 0], alive
        return state.flat[state.slot[alive, at[alive]].to(self.device)], alive

    # -- one block --

    def _block(self, number: int, rows: Rows, state: _State) -> None:
        base, example = self.base.blocks[number], rows.example
        for entry in rows.streams(number):
            state.write(entry.row, entry.position, entry.value.to(base.hidden))
        inside = rows.inside(number)
        # tokens whose keys and values change, and those whose output may
        keyed, chosen = state.live.clone(), torch.zeros_like(state.live)
        for entry in inside:
            (keyed if entry.place.later else chosen)[entry.row, entry.position] = True
        alone = chosen.any(1) & ~keyed.any(1) & rows.single(number)
        keyed &= self.needed[number][example]
        grown = keyed | _seen_from(keyed, self.visible[number], example) if bool(keyed.any()) else keyed
        ahead = self.needed[number + 1][example]
        full = (grown | chosen) & ahead & ~alone[:, None]
        extra = keyed & ~full & full.any(1, keepdim=True)
        out: list[Tensor] = []
        slot = torch.zeros_like(state.slot)
        live = torch.zeros_like(state.live)
        done = 0
        if bool(full.any()):
            tokens = Tokens.of(full, example)
            out.append(self._call(number, tokens, state, inside, self._early(number, full, extra, keyed, state, rows)))
            live |= full
            slot[full] = torch.arange(len(tokens))
            done = len(tokens)
        for place in dict.fromkeys(entry.place for entry in inside if not entry.place.later):
            here = [entry for entry in inside if entry.place is place]
            mine = torch.zeros_like(state.live)
            for entry in here:
                mine[entry.row, entry.position] = True
            mine &= alone[:, None] & ahead
            if not bool(mine.any()):
                continue
            tokens = Tokens.of(mine, example)
            out.append(self._local(number, tokens, here, place))
            live |= mine
            slot[mine] = done + torch.arange(len(tokens))
            done += len(tokens)
        state.live, state.slot = live, slot
        if out:
            state.flat = torch.cat(out) if len(out) > 1 else out[0]

    def _early(
        self,
        number: int,
        full: Bool[Tensor, "row position"],
        extra: Bool[Tensor, "row position"],
        keyed: Bool[Tensor, "row position"],
        state: _State,
        rows: Rows,
    ) -> _Early:
        """What runs up to the attention by itself: tokens whose output nobody needs, and, where most of the others are
        as in the unedited run up to there, those few that are not."""
        spans = self.plan.before[number]
        fresh = keyed & full
        known = all((span.module, span.ordinal) in self.base.outputs for span in spans)
        split = known and bool(spans) and 2 * int(fresh.sum()) <= int(full.sum())
        first = fresh | extra if split else extra
        early = _Early(Tokens.of(extra, rows.example), full | extra)
        if not bool(first.any()):
            return early
        tokens = Tokens.of(first, rows.example)
        found: list[Tensor] = []

        def stop(met: Meeting) -> Tensor:
            found.extend((met.k, met.v))
            raise Stop

        visits = self._visits(number, tokens, rows.inside(number))
        made: dict[tuple[nn.Module, int], Any] = {}
        with contextlib.suppress(Stop):
            capture = (spans, made) if split else None
            self._run(number, tokens, self._hidden(number, tokens, state), visits, stop, capture=capture)
        if len(early.tokens):
            mine = extra[tokens.row, tokens.position].nonzero().flatten().to(found[0].device)
            early.held = found[0].index_select(2, mine), found[1].index_select(2, mine)
        if split:
            early.outputs = self._mixed(number, Tokens.of(full, rows.example), tokens, made)
        return early

    def _mixed(
        self, number: int, tokens: Tokens, fresh: Tokens, made: Mapping[tuple[nn.Module, int], Any]
    ) -> dict[tuple[nn.Module, int], Any]:
        """What ran before the attention, at all tokens: recorded, but made anew where the stream changed."""
        index = torch.full((int(tokens.row.max()) + 1, self.width), -1)
        index[tokens.row, tokens.position] = torch.arange(len(tokens))
        to = index[fresh.row, fresh.position]
        of = (to >= 0).nonzero().flatten()
        to = to[of].to(self.device)
        out = self._recorded(self.plan.before[number], tokens)
        for key, value in out.items():
            axes = self.plan.outputs[key]
            for path, leaf in list(leaves(value)):
                axis = axes[path].along
                if axis is not None:
                    new = read(made[key], path).index_select(axis, of.to(self.device))
                    value = replaced(value, path, leaf.index_copy(axis, to, new))
            out[key] = value
        return out

    def _recorded(self, spans: Sequence[Span], tokens: Tokens) -> dict[tuple[nn.Module, int], Any]:
        """What calls returned in the unedited run, at some tokens."""
        out = {}
        for span in spans:
            key = span.module, span.ordinal
            value, axes = self.base.outputs[key], self.plan.outputs[key]
            out[key] = for_tokens(value, axes, tokens.example, tokens.position, self.width)
        return out

    def _call(self, number: int, tokens: Tokens, state: _State, inside: Sequence[Entry], early: _Early) -> Tensor:
        base = self.base.blocks[number].attention

        def compute(met: Meeting) -> Tensor:
            assert base is not None
            k, v, all_ = met.k, met.v, tokens
            if early.held is not None:
                k, v = torch.cat((early.held[0], k), 2), torch.cat((early.held[1], v), 2)
                all_, order = _merged(early.tokens, tokens)
                order = order.to(k.device)
                k, v = k.index_select(2, order), v.index_select(2, order)
            mask = base.mask
            key = (None if mask is None else mask.data_ptr(), base.causal, base.additive, _named(tokens), _named(all_))
            if key not in self._groups:
                self._groups.clear()
                self._groups[key] = group(
                    tokens, all_, early.live, mask, base.causal, base.additive, met.q.dtype, met.q.device
                )
            return attend(met, self._groups[key], k, v, base)

        if early.outputs is not None:  # what is written before the attention is in them already
            inside = [
                e for e in inside if not e.place.later or isinstance(self.net.map.port(e.place.site), AttentionPort)
            ]
        visits = self._visits(number, tokens, inside)
        return self._run(number, tokens, self._hidden(number, tokens, state), visits, compute, early.outputs)

    def _local(self, number: int, tokens: Tokens, inside: Sequence[Entry], place: Place) -> Tensor:
        """Tokens whose edit lies behind all that moves between positions: what ran before it is not run again."""
        block = self.base.blocks[number]

        def recorded(met: Meeting) -> Tensor:
            assert block.z is not None
            return block.z[tokens.example.to(block.z.device), tokens.position.to(block.z.device)][None]

        outputs = self._recorded(place.skipped, tokens)
        hidden = block.hidden[tokens.example.to(self.device), tokens.position.to(self.device)]
        visits = self._visits(number, tokens, inside)
        if not place.attends:
            return self._run(number, tokens, hidden, visits, recorded, outputs)
        return self._run(number, tokens, hidden, visits, self._unedited(number, tokens), outputs)

    def _unedited(self, number: int, tokens: Tokens) -> Callable[[Meeting], Tensor]:
        """Attention over unedited keys alone, as an edited query needs it."""
        base = self.base.blocks[number].attention

        def compute(met: Meeting) -> Tensor:
            assert base is not None
            rows = int(tokens.row.max()) + 1
            live = torch.zeros(rows, self.width, dtype=torch.bool)
            live[tokens.row, tokens.position] = True  # its own key is unedited too
            groups = group(tokens, tokens, live, base.mask, base.causal, base.additive, met.q.dtype, met.q.device)
            k, v = (
                x[tokens.example.to(x.device), :, tokens.position.to(x.device)].transpose(0, 1)[None]
                for x in (base.k, base.v)
            )
            return attend(met, groups, k, v, base)

        return compute

    def _hidden(self, number: int, tokens: Tokens, state: _State) -> Float[Tensor, "token channel"]:
        """What the block reads at the tokens: the row's own stream where it changed, the unedited one elsewhere."""
        base = self.base.blocks[number].hidden
        hidden = base[tokens.example.to(self.device), tokens.position.to(self.device)]
        changed = state.live[tokens.row, tokens.position]
        if bool(changed.any()):
            slots = state.slot[tokens.row, tokens.position][changed].to(self.device)
            hidden[changed.to(self.device)] = state.flat[slots]
        return hidden

    def _visits(self, number: int, tokens: Tokens, inside: Sequence[Entry]) -> dict[str, Visit]:
        """What is written at each site of the block, at the tokens of one call."""
        index = torch.full((int(tokens.row.max()) + 1, self.width), -1)
        index[tokens.row, tokens.position] = torch.arange(len(tokens))
        by_site: dict[str, list[tuple[Tensor, Tensor | None, Tensor]]] = {}
        for entry in inside:
            token = index[entry.row.clamp(max=len(index) - 1), entry.position]
            here = (token >= 0) & (entry.row < len(index))
            if bool(here.any()):
                part = None if entry.part is None else entry.part[here]
                found = token[here], part, entry.value[here.to(entry.value.device)]
                by_site.setdefault(entry.place.site, []).append(found)
        return {site: _written(parts) for site, parts in by_site.items()}

    def _run(
        self,
        number: int,
        tokens: Tokens,
        hidden: Tensor,
        visits: Mapping[str, Visit],
        compute: Callable[[Meeting], Tensor],
        outputs: Mapping[tuple[nn.Module, int], Any] | None = None,
        capture: tuple[Sequence[Span], dict[tuple[nn.Module, int], Any]] | None = None,
    ) -> Float[Tensor, "token channel"]:
        """Call a block on single tokens as one long row.

        Args:
            number: the block.
            tokens: which.
            hidden: what it reads of the stream.
            visits: what is written, by site.
            compute: its attention.
            outputs: what calls within it return instead of being made.
            capture: calls whose outputs to take down, and where.
        """
        stage, record_ = self.plan.stages[number], self.base.blocks[number]
        self.tokens += len(tokens)
        arguments = for_tokens(
            record_.arguments, self.plan.arguments[number], tokens.example, tokens.position, self.width
        )
        arguments = replaced(arguments, stage.pre, hidden[None])
        args = tuple(arguments[i] for i in range(sum(isinstance(k, int) for k in arguments)))
        kwargs = {k: v for k, v in arguments.items() if not isinstance(k, int)}
        parts = {}
        with eagerly(self.net), Session(self.net.root, 1) as session:
            for site, visit in visits.items():
                port = self.net.map.port(site)
                if isinstance(port, AttentionPort):
                    parts[port.part] = visit
                else:
                    port.attach(session, visit, True)
            meet(session, stage.attentions, _visited(compute, parts))
            if capture is not None:
                take(self.net, session, *capture)
            if outputs:
                session.enter(returning(outputs))
            session.install()
            result = stage.span.module(*args, **kwargs)
        return read(result, stage.post)[0]


@dataclass(eq=False)
class _State:
    """The edited stream between two blocks.

    Args:
        live: (row, position) where it differs from the unedited one.
        slot: (row, position) where in `flat` it lies there.
        flat: (token, channel).
    """

    live: Bool[Tensor, "row position"]
    slot: Int[Tensor, "row position"] = field(default_factory=lambda: torch.empty(0))
    flat: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        self.slot = torch.zeros(self.live.shape, dtype=torch.long)

    def write(self, row: Tensor, position: Tensor, value: Float[Tensor, "token channel"]) -> None:
        """Put values into the stream."""
        start = len(self.flat)
        self.flat = torch.cat((self.flat, value)) if start else value
        self.live[row, position] = True
        self.slot[row, position] = start + torch.arange(len(row))


@dataclass(eq=False)
class _Early:
    """What a block computed ahead of the call on its tokens.

    Args:
        tokens: tokens that only give keys and values.
        live: which keys of each row are its own.
        held: keys and values of `tokens`.
        outputs: what calls before the attention return, at the tokens of the call.
    """

    tokens: Tokens
    live: Bool[Tensor, "row position"]
    held: tuple[Tensor, Tensor] | None = None
    outputs: dict[tuple[nn.Module, int], Any] | None = None


def _visited(compute: Callable[[Meeting], Tensor], parts: Mapping[str, Visit]) -> Callable[[Meeting], Tensor]:
    """Attention whose q, k, v and z are written by the visits."""
    if not parts:
        return compute

    def attended(met: Meeting) -> Tensor:
        for name in ("q", "k", "v"):
            if name in parts:
                new = parts[name](getattr(met, name).transpose(1, 2))
                if new is not None:
                    setattr(met, name, new.transpose(1, 2))
        z = compute(met)
        new = parts["z"](z) if "z" in parts else None
        return z if new is None else new

    return attended


def _written(parts: Sequence[tuple[Tensor, Tensor | None, Tensor]]) -> Visit:
    def visit(value: Tensor) -> Tensor:
        out = value.clone()
        for token, part, new in parts:
            token = token.to(out.device)
            if part is None:
                out[0, token] = new.to(out)
            else:
                out[0, token, part.to(out.device)] = new.to(out)
        return out

    return visit


def _seen_from(
    chosen: Bool[Tensor, "row position"], visible: Bool[Tensor, "example query key"], example: Int[Tensor, " row"]
) -> Bool[Tensor, "row position"]:
    """Which positions see a chosen one."""
    out = torch.zeros_like(chosen)
    for e in example.unique().tolist():
        here = example == e
        out[here] = (chosen[here].float() @ visible[e].float().T) > 0
    return out


def _merged(first: Tokens, second: Tokens) -> tuple[Tokens, Int[Tensor, " token"]]:
    """The tokens of both in order of their rows, and where each was in the two laid end to end."""
    row, example, position = (
        torch.cat((getattr(first, name), getattr(second, name))) for name in ("row", "example", "position")
    )
    order = torch.argsort(row * (int(position.max()) + 1) + position)
    return Tokens(row[order], example[order], position[order]), order


def _named(tokens: Tokens) -> tuple[bytes, ...]:
    """What tells one set of tokens from another."""
    return tuple(x.numpy().tobytes() for x in (tokens.row, tokens.example, tokens.position))
