"""Edits at work: each becomes a function from a site's value to its new value.

Nothing is written where an edit does not select, and what every edit reached is counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.edit import (
    Ablate,
    Add,
    Custom,
    Drop,
    Edit,
    Insert,
    KnockOut,
    Patch,
    Project,
    Scale,
    Set,
    Steer,
    Substitute,
    SwapAlong,
    Twin,
)
from openwork.errors import BadInput, Misaligned
from openwork.network.context import Context, Ledger
from openwork.network.layout import Layout
from openwork.network.ports import select
from openwork.site import Where

if TYPE_CHECKING:
    pass


def editor(edit: Edit, context: Context, ledger: Ledger) -> Callable[[Tensor], Tensor | None]:
    """The visit that applies `edit`."""
    compute, whole = _COMPUTE.get(type(edit)), _WHOLE.get(type(edit))

    def visit(value: Tensor) -> Tensor | None:
        if context.busy:  # a surrogate or function that calls the module it stands in for
            return None
        step = max(context.session.step, 0)
        context.see(value)
        mask = _mask(edit.where, value, context, step)
        reached = value.shape[0] if mask is None else int(mask.any(1).sum())
        if not reached:
            return None
        ledger.fired += 1
        ledger.rows = max(ledger.rows, reached)
        if whole is not None:
            return whole(edit, value, context, step)
        assert compute is not None
        index = edit.site.index
        part = select(value, context.part_axis, index) if index else value
        context.busy = True
        try:
            new = compute(edit, part, mask, context)
        finally:
            context.busy = False
        new = _fitting(edit, new, part, context).to(part.dtype)
        if mask is not None:
            new = torch.where(_spread(mask, part, context).to(part.device), new, part)
        if not index:
            return new
        out = value.clone()
        out.index_copy_(context.part_axis, torch.tensor(index, device=value.device), new)
        return out

    return visit


def whole_part(edit: Edit, value: Tensor, context: Context) -> Tensor:
    """What the edit would make of the part that its index selects if it held everywhere.

    Args:
        edit: any edit that writes a part of the site, so none of `KnockOut`, `Insert` and `Drop`.
        value: the whole value of the site.
        context: of the site.

    Returns:
        the part with the edit applied, in the shape of the part.
    """
    context.see(value)
    part = select(value, context.part_axis, edit.site.index)
    mask = _mask(edit.where, value, context, 0)
    return _fitting(edit, _COMPUTE[type(edit)](edit, part, mask, context), part, context).to(part.dtype)


def reached(edit: Edit, value: Tensor, context: Context) -> Tensor | None:
    """Which columns of each row the edit selects, (batch, column) bool on the CPU; None for all of them."""
    context.see(value)
    return _mask(edit.where, value, context, 0)


def _fitting(edit: Edit, new: Tensor, part: Tensor, context: Context) -> Tensor:
    """`new` in the shape of the part that it replaces."""
    if new.shape == part.shape:
        return new
    try:
        return new.broadcast_to(part.shape)
    except RuntimeError:
        raise BadInput(
            f"expected {type(edit).__name__} at {edit.site} to give a value that broadcasts to "
            f"{tuple(part.shape)} {context.axes}; got {tuple(new.shape)}"
        ) from None


def _mask(where: Where, value: Tensor, context: Context, step: int) -> Tensor | None:
    axis = context.column_axis()
    if axis is None or "batch" not in context.axes:
        if where.positions is not None or where.group is not None:
            raise BadInput(f"expected no positions at {context.site}, whose axes are {context.axes}; got {where}")
        return context.mask(where, value.shape[0], step)
    return context.mask(where, context.columns(value), step)


def _spread(mask: Tensor, value: Tensor, context: Context) -> Tensor:
    """A (batch, column) mask in the shape that broadcasts against a value of the site."""
    shape = [1] * value.ndim
    shape[0] = mask.shape[0]
    if context.places and context.places[0] > 0:
        for axis in context.places:
            shape[axis] = value.shape[axis]
        return mask.reshape(shape)
    return mask.any(1).reshape(shape)


# -- the value each edit writes; mask is None where it writes everywhere --


def _source(name: str, context: Context, index: tuple[int, ...]) -> tuple[Tensor, Layout]:
    run = context.sources[name]
    value = run.values[context.site]
    layout = context.own_layout(value, run.layout) if context.foreign else run.layout
    return select(value, context.part_axis, index), layout


def _patch(edit: Patch, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    source, layout = _source(edit.source, context, edit.site.index)
    return _aligned(source.to(part.device), layout, part, mask, edit.where, edit.source_where, context)


def _aligned(
    source: Tensor,
    layout: Layout,
    part: Tensor,
    mask: Tensor | None,
    where: Where,
    source_where: Where | None,
    context: Context,
) -> Tensor:
    """The source's values at the columns of `part` that they belong to."""
    axis = context.column_axis()
    batch = part.shape[0]
    if source.shape[0] not in (1, batch):
        raise Misaligned(f"expected a source of 1 or {batch} rows at {context.site}; got {source.shape[0]}")
    if axis is None or axis == 0:
        return source
    plain = source_where is None and (
        where.group is None or where.group in ("first",) or _same_groups(where, layout, context)
    )
    same_rows = source.shape[0] == 1 or layout.lengths == context.rows.lengths
    if plain and same_rows and layout.offsets == context.rows.offsets and source.shape[1:] == part.shape[1:]:
        return source.clone() if mask is None else source  # networks that add in place must not change the source
    if "key" in context.axes:
        raise Misaligned(
            f"expected source and inputs of equal lengths to patch {context.site}; "
            f"got {layout.lengths} and {context.rows.lengths}"
        )
    out, source = context.flat(part).clone(), context.flat(source)
    rows = range(batch) if where.rows is None else where.rows
    for row in rows:
        origin = row if source.shape[0] == batch else 0
        to = context.rows.positions(where, row)
        of = layout.positions(source_where or where, origin)
        if len(to) != len(of):
            raise Misaligned(
                f"expected as many source positions as written ones at {context.site}; row {row} reads {len(of)} and "
                f"writes {len(to)}. Name positions or a token group that both have"
            )
        columns = torch.tensor(to, device=part.device) + context.rows.offsets[row]
        values = source[origin].index_select(axis - 1, torch.tensor(of, device=part.device) + layout.offsets[origin])
        out[row].index_copy_(axis - 1, columns, values.to(out.dtype))
    return out.reshape(part.shape)


def _same_groups(where: Where, layout: Layout, context: Context) -> bool:
    if where.group in layout.groups or where.group in context.rows.groups:
        return layout.groups.get(where.group or "") == context.rows.groups.get(where.group or "")
    return layout.lengths == context.rows.lengths


def _ablate(edit: Ablate, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    if edit.how == "zero":
        return torch.zeros_like(part)
    source, layout = _source(edit.source, context, edit.site.index)
    source = source.to(part.device)
    if edit.how == "resample":
        order = derangement(source.shape[0], edit.seed)
        if source.shape[0] != part.shape[0] or len(set(layout.lengths)) > 1:
            raise Misaligned(
                f"expected a source of {part.shape[0]} rows of one length to resample from; got {source.shape[0]} rows "
                f"of lengths {sorted(set(layout.lengths))}"
            )
        return source[order]
    real = _real(source, layout, context)
    mean = _everywhere(real.mean(0), part, context)
    if edit.how == "mean":
        return mean
    generator = torch.Generator().manual_seed(edit.seed)
    noise = torch.randn(part.shape, generator=generator).to(part)
    return mean + _everywhere(real.std(0), part, context) * noise


def _everywhere(statistic: Tensor, part: Tensor, context: Context) -> Tensor:
    """A statistic over rows and positions, in a shape that broadcasts against the part."""
    if len(context.places) < 2:
        return statistic
    return statistic.reshape([1 if i == 0 or i in context.places else n for i, n in enumerate(part.shape)])


def _real(source: Tensor, layout: Layout, context: Context) -> Tensor:
    """The source's values with batch and position (real tokens only) as one leading axis."""
    axis = context.column_axis()
    if axis is None or "key" in context.axes:
        return source.float()
    moved = context.flat(source).movedim(axis, 1)
    rows = [moved[r, o : o + n] for r, (o, n) in enumerate(zip(layout.offsets, layout.lengths, strict=True))]
    return torch.cat(rows).float()


def derangement(n: int, seed: int) -> list[int]:
    """A seeded permutation of `n` rows that leaves no row in its place.

    Raises:
        BadInput: for fewer than two rows.
    """
    if n < 2:
        raise BadInput(f"expected at least two rows to resample from; got {n}")
    order = list(range(n))
    random.Random(seed).shuffle(order)
    out = [0] * n
    for here, there in zip(order, order[1:] + order[:1], strict=True):  # one cycle through all rows
        out[here] = there
    return out


def _set(edit: Set, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    return _fitting(edit, _along(_tensor(edit.value, part), part, context), part, context)


def _add(edit: Add, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    return part + edit.scale * _fitting(edit, _along(_tensor(edit.vector, part), part, context), part, context)


def _along(array: Tensor, part: Tensor, context: Context) -> Tensor:
    """A vector along the channels, wherever their axis is; other arrays broadcast as they are."""
    if array.ndim != 1 or len(context.places) < 2 or "channel" not in context.axes:
        return array
    shape = [1] * part.ndim
    shape[context.axes.index("channel")] = len(array)
    return array.reshape(shape)


def _scale(edit: Scale, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    return part * edit.factor


def _project(edit: Project, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    inside = _within(_tensor(edit.directions, part), part, context)
    return inside if edit.keep else part - inside


def _steer(edit: Steer, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    axis = context.axes.index("channel") if "channel" in context.axes else part.ndim - 1
    moved, direction = part.movedim(axis, -1), _tensor(edit.direction, part)
    if moved.shape[-1] != len(direction):
        raise BadInput(f"expected a direction of {moved.shape[-1]} channels at {context.site}; got {len(direction)}")
    if edit.how == "clamp":
        unit = direction / direction.norm()
        new = moved + (edit.amount - moved @ unit).unsqueeze(-1) * unit
    else:
        new = moved + edit.amount * direction
        # a vector of no length has none to give back
        new = new * (moved.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True).clamp_min(1e-12))
    return new.movedim(-1, axis)


def _swap(edit: SwapAlong, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    source, layout = _source(edit.source, context, edit.site.index)
    other = _aligned(source.to(part.device), layout, part, mask, edit.where, None, context)
    return part + _within(_tensor(edit.directions, part), other - part, context)


def _within(directions: Tensor, value: Tensor, context: Context) -> Tensor:
    """The component of `value` in the span of `directions`, along the channel axis."""
    axis = context.axes.index("channel") if "channel" in context.axes else value.ndim - 1
    moved = value.movedim(axis, -1)
    if directions.shape[-1] != moved.shape[-1]:
        raise BadInput(
            f"expected directions of {moved.shape[-1]} channels at {context.site}; got {directions.shape[-1]}"
        )
    basis = torch.linalg.qr(directions.double().T).Q.to(moved.dtype)
    return (moved @ basis @ basis.T).movedim(-1, axis)


def _substitute(edit: Substitute, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    read = part if edit.reads is None else context.reads[str(edit.reads)]
    return context.surrogates[edit.by](read)


def _custom(edit: Custom, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    assert edit.fn is not None
    new = edit.fn(part)
    if not isinstance(new, Tensor):
        raise BadInput(f"expected the function of a Custom edit at {edit.site} to return a tensor; got {type(new)}")
    return new


def _knock_out(edit: KnockOut, scores: Tensor, context: Context, step: int) -> Tensor:
    """Scores with the selected (query, key) pairs at minus infinity."""
    queries = context.mask(edit.where, scores.shape[-2], step)
    keys = context.mask(edit.keys, scores.shape[-1], step)
    cut = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    if queries is not None:
        cut = cut & queries[:, None, :, None]
    if keys is not None:
        cut = cut & keys[:, None, None, :]
    if edit.site.index:
        heads = torch.zeros(scores.shape[1], dtype=torch.bool)
        heads[list(edit.site.index)] = True
        cut = cut & heads[None, :, None, None]
    cut = cut.to(scores.device).expand_as(scores)
    # masks fill with a large finite number, which would win a row of which all else is cut
    hidden = cut.any(-1, keepdim=True) & (scores <= torch.finfo(scores.dtype).min / 2)
    return scores.masked_fill(cut | hidden, -torch.inf)


def _inserted(edit: Insert, value: Tensor, context: Context, step: int) -> Tensor:
    """The value with further tokens behind the last."""
    _needs_patches(edit, context)
    tokens = _tensor(edit.tokens, value)
    if tokens.shape[1] != value.shape[2]:
        raise BadInput(f"expected tokens of {value.shape[2]} channels at {context.site}; got {tokens.shape[1]}")
    return torch.cat((value, tokens.expand(value.shape[0], -1, -1)), 1)


def _dropped(edit: Drop, value: Tensor, context: Context, step: int) -> Tensor:
    """The value without some tokens."""
    _needs_patches(edit, context)
    positions = torch.from_numpy(edit.positions.numpy()).long().to(value.device)
    if positions.ndim == 2 and len(positions) != len(value):
        raise BadInput(f"expected positions for {len(value)} examples at {context.site}; got {len(positions)}")
    positions = positions.expand(len(value), -1)
    if int(positions.max()) >= value.shape[1] or positions.shape[1] == value.shape[1]:
        raise BadInput(
            f"expected some of the {value.shape[1]} tokens of {context.site}, not all; got {positions.shape[1]} "
            f"positions up to {int(positions.max())}"
        )
    kept = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device).scatter(1, positions, False)
    return value[kept].reshape(len(value), -1, value.shape[2])


def _needs_patches(edit: Edit, context: Context) -> None:
    if context.axes != ("batch", "position", "channel") or not context.foreign:
        raise BadInput(
            f"expected a site (batch, position, channel) whose tokens are patches of an image for "
            f"{type(edit).__name__}; {context.site} has {context.axes}"
        )


def _twin(edit: Twin, part: Tensor, mask: Tensor | None, context: Context) -> Tensor:
    inner = replace(edit.of, site=edit.site, where=edit.where)
    change = (_fitting(inner, _COMPUTE[type(inner)](inner, part, mask, context), part, context) - part).float()
    axis = context.column_axis()
    kept = 1 if axis is None else 2
    moved = change if axis is None else context.flat(change).movedim(axis, 1)
    size = moved.flatten(kept).norm(dim=kept) if moved.ndim > kept else moved.abs()
    direction = torch.randn(moved.shape[kept:], generator=torch.Generator().manual_seed(edit.seed)).to(moved)
    direction = direction / direction.norm()
    new = size.reshape(*size.shape, *[1] * (moved.ndim - kept)) * direction
    return part + (new if axis is None else new.movedim(1, axis).reshape(part.shape)).to(part.dtype)


def _tensor(array: Any, like: Tensor) -> Tensor:
    """An array of an edit on the device and in the dtype of the value it meets."""
    return torch.from_numpy(array.numpy()).to(device=like.device, dtype=like.dtype)


_COMPUTE: dict[type[Edit], Callable[..., Tensor]] = {
    Patch: _patch,
    Ablate: _ablate,
    Set: _set,
    Add: _add,
    Scale: _scale,
    Project: _project,
    Steer: _steer,
    SwapAlong: _swap,
    Substitute: _substitute,
    Custom: _custom,
    Twin: _twin,
}
_WHOLE: dict[type[Edit], Callable[..., Tensor]] = {KnockOut: _knock_out, Insert: _inserted, Drop: _dropped}
"""Edits that change more of the value than the part that `where` and an index select."""
