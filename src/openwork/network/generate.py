"""Generation with edits at the prefill and at every cached step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.edit import Edit
from openwork.errors import BadInput, EditMissed
from openwork.network.certify import first_output
from openwork.network.context import Ledger
from openwork.network.inputs import Prepared
from openwork.network.padding import padding_holds
from openwork.network.run import attach, check_mode, eagerly, make_plan, resolve_sources
from openwork.network.session import Session
from openwork.task import Inputs

if TYPE_CHECKING:
    from openwork.network.network import Network


@dataclass(eq=False)
class Generation:
    """What a network wrote.

    Args:
        ids: new token ids of each row, without padding.
        texts: their text, or None without a tokenizer.
        ledger: how often each edit fired.
    """

    ids: list[list[int]]
    texts: list[str] | None
    ledger: list[Ledger]

    def __str__(self) -> str:
        return "\n".join(self.texts if self.texts is not None else map(str, self.ids))


def generate(
    net: Network,
    inputs: Any,
    max_new_tokens: int,
    edits: Edit | Iterable[Edit] = (),
    *,
    sources: dict[str, Any] | None = None,
    surrogates: dict[str, Any] | None = None,
    **options: Any,
) -> Generation:
    """Generate from `inputs`, greedily unless `options` say otherwise.

    Args:
        net: the network.
        inputs: as for `Network.run`; rows of unequal length are padded on the left.
        max_new_tokens: how many tokens to write at most.
        edits: edits; ``Where(steps=..., since=...)`` says when they hold (0 is the prefill). Positions count tokens
            from the first on, so -1 is the token of the step; keys and values are edited whenever attention reads them.
        sources: source runs by name.
        surrogates: surrogates by name.
        options: options of transformers' ``generate``, for models that have it.

    Raises:
        BadInput: if the network predicts no tokens.
        EditMissed: if an edit never fired.
    """
    if net.vocabulary is None:
        raise BadInput("this network reads no tokens, so it cannot generate")
    check_mode(net)
    if max_new_tokens < 1:
        raise BadInput(f"expected max_new_tokens of at least 1; got {max_new_tokens}")
    prepared = _left(net, net.preparer.prepare(inputs, side="left"))
    longest = net.preparer.longest
    if longest is not None and prepared.layout.width + max_new_tokens - 1 > longest and not _has_encoder(net):
        raise BadInput(
            f"expected prompt and new tokens within {longest} positions; got {prepared.layout.width} + {max_new_tokens}"
        )
    if prepared.layout.padded and not padding_holds(net, "left"):
        return _row_by_row(net, prepared, max_new_tokens, edits, sources, surrogates, options)
    native = callable(getattr(net.root, "generate", None))
    if not native and options:
        raise BadInput(f"this module has no generate of its own, so it takes no {sorted(options)}; it decodes greedily")
    plan = make_plan(net, (), edits, None, grads=False)
    runs = resolve_sources(net, plan, prepared, sources or {})
    with torch.no_grad(), eagerly(net), Session(net.root, prepared.layout.rows) as session:
        session.count_steps()
        ledgers = attach(net, session, plan, prepared.layout, {}, runs, surrogates or {}) if plan.sites else []
        session.install()
        ids = _native(net, prepared, max_new_tokens, options) if native else _greedy(net, prepared, max_new_tokens)
    missed = next((ledger for ledger in ledgers if not ledger.rows), None)
    if missed is not None:
        raise EditMissed(f"{type(missed.edit).__name__} at {missed.edit.site} never fired in {max_new_tokens} steps")
    rows = [_trimmed(row, net) for row in ids.tolist()]
    return Generation(rows, [net.decode(row) for row in rows] if net.tokenizer is not None else None, ledgers)


def _has_encoder(net: Network) -> bool:
    return bool(getattr(getattr(net.root, "config", None), "is_encoder_decoder", False))


def _left(net: Network, prepared: Prepared) -> Prepared:
    """Padding moved to the left, where the newest token of every row lies in the last column."""
    layout, main = prepared.layout, net.preparer.main
    if _has_encoder(net) or all(o + n == layout.width for o, n in zip(layout.offsets, layout.lengths, strict=True)):
        return prepared
    further = sorted(set(prepared.kwargs) - {main, "attention_mask", "position_ids"})
    if further:
        raise BadInput(f"expected rows padded on the left to generate with {further}; got padding on the right")
    ids = prepared.kwargs[main].tolist()
    rows = zip(ids, layout.offsets, layout.lengths, strict=True)
    moved = Inputs(tuple(tuple(row[o : o + n]) for row, o, n in rows), dict(layout.groups))
    return net.preparer.prepare(moved, side="left")


def _row_by_row(
    net: Network,
    prepared: Prepared,
    max_new_tokens: int,
    edits: Any,
    sources: dict[str, Any] | None,
    surrogates: dict[str, Any] | None,
    options: dict[str, Any],
) -> Generation:
    """Every row on its own, for architectures that padding on the left would change (state-space models)."""
    edits = [edits] if isinstance(edits, Edit) else list(edits)
    if sources:
        raise BadInput(f"{net.name} generates rows of unequal length one by one; give sources one row at a time too")
    ids: Tensor = prepared.kwargs[net.preparer.main]
    out = Generation([], None if net.tokenizer is None else [], [])
    for row, (offset, length) in enumerate(zip(prepared.layout.offsets, prepared.layout.lengths, strict=True)):
        groups = {name: (rows[row],) for name, rows in prepared.layout.groups.items()}
        tokens = tuple(ids[row, offset : offset + length].tolist())
        here = [
            replace(e, where=replace(e.where, rows=None)) for e in edits if e.where.rows is None or row in e.where.rows
        ]
        one = generate(net, Inputs((tokens,), groups), max_new_tokens, here, surrogates=surrogates, **options)
        out.ids += one.ids
        out.ledger += one.ledger
        if out.texts is not None and one.texts is not None:
            out.texts += one.texts
    return out


def _native(net: Network, prepared: Prepared, max_new_tokens: int, options: dict[str, Any]) -> Tensor:
    """transformers' own loop, with its cache."""
    kwargs = {k: v for k, v in prepared.kwargs.items() if k != "position_ids"}  # it derives them from the mask
    ids = kwargs[net.preparer.main]
    kwargs.setdefault("attention_mask", torch.ones_like(ids))
    pad = getattr(net.tokenizer, "pad_token_id", None)
    options = {"do_sample": False, "pad_token_id": 0 if pad is None else pad, **options}
    write: Any = net.root.generate
    out = write(**kwargs, max_new_tokens=max_new_tokens, **options)
    out = out if isinstance(out, Tensor) else out.sequences
    return out[:, 1:] if _has_encoder(net) else out[:, ids.shape[1] :]


def _greedy(net: Network, prepared: Prepared, max_new_tokens: int) -> Tensor:
    """A loop of full forward passes, for modules without a cache; every pass is a prefill that grows by one token."""
    kwargs = dict(prepared.kwargs)
    main, layout = net.preparer.main, prepared.layout
    ids: Tensor = kwargs[main]
    if layout.padded and "attention_mask" not in kwargs:
        raise BadInput("this module takes no attention_mask: generate from rows of one length, or row by row")
    for _ in range(max_new_tokens):
        step = {**kwargs, main: ids}
        if "attention_mask" in kwargs:
            ones = torch.ones_like(ids[:, : ids.shape[1] - kwargs["attention_mask"].shape[1]])
            step = {**step, "attention_mask": torch.cat([kwargs["attention_mask"], ones], 1)}
            step.pop("position_ids", None)
            prepared_step = net.preparer.prepare(step)
            step = prepared_step.kwargs
        logits = first_output(net.call(step))
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, layout.width :]


def _trimmed(row: list[int], net: Network) -> list[int]:
    """A row up to and without its end-of-sequence token."""
    end = getattr(net.tokenizer, "eos_token_id", None)
    return row[: row.index(end)] if end is not None and end in row else row
