"""Attention of single tokens of many edited rows, against keys and values of the unedited run where those still hold.

All tokens of a call lie in one long row. For attention they are taken apart into groups of one example each: a group
shares the example's unedited keys, and carries its rows' own keys beside them; a mask says which query sees which. The
kernel is the module's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openwork.network.replay.meeting import Meeting

GROUP = (32, 128)
"""Queries of one group, at most, unless one row has more: about as many as unedited keys, within these bounds. Larger
groups spend more on keys of other rows, smaller ones on copies of the unedited keys."""


@dataclass(eq=False)
class Tokens:
    """Tokens of edited rows.

    Args:
        row: (token,) which row each belongs to, ascending.
        example: (token,) the example of that row.
        position: (token,) its position.
    """

    row: Int[Tensor, " token"]
    example: Int[Tensor, " token"]
    position: Int[Tensor, " token"]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, chosen: Bool[Tensor, "row position"], example: Int[Tensor, " row"]) -> Tokens:
        """The tokens that are chosen in each row."""
        row, position = chosen.nonzero(as_tuple=True)
        return cls(row, example[row], position)


@dataclass(eq=False)
class Groups:
    """How the tokens of a call are grouped, and what each query sees.

    Args:
        example: (group,) the example of each.
        query: (group, query) the token of the call, 0 where there is none.
        real: (group, query) whether there is one.
        live: (group, live) the row's own key among all of the call's.
        columns: how many unedited keys are looked at.
        seen: (group, 1 or head, query, columns + live) bool, or what the kernel adds to its scores.
    """

    example: Int[Tensor, " group"]
    query: Int[Tensor, "group query"]
    real: Bool[Tensor, "group query"]
    live: Int[Tensor, "group live"]
    columns: int
    seen: Tensor


def group(
    queries: Tokens,
    keys: Tokens,
    live: Bool[Tensor, "row position"],
    mask: Tensor | None,
    causal: bool,
    additive: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Groups:
    """Group the tokens of a call.

    Args:
        queries: the tokens whose attention is computed.
        keys: the tokens whose own keys there are.
        live: which keys of each row are its own.
        mask: of the unedited run: (1 or example, 1 or head, query, key), bool or added to scores; None for none.
        causal: whether, without a mask, later keys are hidden.
        additive: whether the kernel takes no bool mask.
        dtype: of the queries.
        device: of the queries.
    """
    rows = len(live)
    count = torch.bincount(queries.row, minlength=rows)
    key_count = torch.bincount(keys.row, minlength=rows)
    example_of = torch.zeros(rows, dtype=torch.long)
    example_of[queries.row] = queries.example
    most = min(max(live.shape[1], GROUP[0]), GROUP[1])
    numbers = _numbered(count.tolist(), key_count.tolist(), example_of.tolist(), most)
    of_row = torch.tensor(numbers)
    groups = int(of_row.max()) + 1
    example = torch.zeros(groups, dtype=torch.long)
    example[of_row[queries.row]] = queries.example
    query, real = _padded(of_row[queries.row], groups)
    own, own_real = _padded(of_row[keys.row], groups)
    q_row, q_at = queries.row[query], queries.position[query]
    k_row, k_at = keys.row[own], keys.position[own]
    # unedited keys are looked at up to the last that some row of the call has not made anew
    needed = ~live[queries.row.unique()]
    last = int(queries.position.max())
    held = needed[:, : last + 1].any(0).nonzero()
    columns = int(held.max()) + 1 if len(held) else 0
    base_open = ~live[:, :columns][q_row]
    live_open = own_real[:, None, :] & (q_row[:, :, None] == k_row[:, None, :])
    open_ = torch.cat((base_open, live_open), -1)
    nothing = ~real[:, None, :, None] & (torch.arange(open_.shape[-1]) == 0)  # a query that is none must see something
    at = torch.cat((torch.arange(columns).expand(groups, -1), k_at), -1)  # position of each key
    if mask is None:
        seen = (open_ & (at[:, None, :] <= q_at[:, :, None]) if causal else open_)[:, None]
        seen |= nothing
    else:
        mask = mask.cpu().expand(mask.shape[0], -1, -1, -1)
        pick = example if mask.shape[0] > 1 else torch.zeros_like(example)
        gathered = mask[pick[:, None, None], :, q_at[:, :, None], at[:, None, :]].movedim(-1, 1)
        if mask.dtype == torch.bool:
            seen = gathered & open_[:, None]
            seen |= nothing
        else:
            seen = gathered.masked_fill(~open_[:, None], torch.finfo(mask.dtype).min)
    if additive and seen.dtype == torch.bool:
        seen = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return Groups(example.to(device), query.to(device), real.to(device), own.to(device), columns, seen.to(device))


def attend(met: Meeting, groups: Groups, keys: Tensor, values: Tensor, base: Meeting) -> Float[Tensor, "1 token h c"]:
    """What attention gives for every query of a call.

    Args:
        met: the call, whose q is (1, head, token, channel).
        groups: how its tokens are grouped.
        keys: (1, group, token, channel) all own keys of the call.
        values: likewise.
        base: the attention of the unedited run.
    """
    q = met.q[0].transpose(0, 1)[groups.query].transpose(1, 2)  # (group, head, query, channel)
    k, v = (
        torch.cat(
            (
                old[:, :, : groups.columns].index_select(0, groups.example),
                new[0].transpose(0, 1)[groups.live].transpose(1, 2),
            ),
            2,
        )
        for old, new in ((base.k, keys), (base.v, values))
    )
    z = met.kernel(q, k, v, groups.seen)
    out = z.new_empty(met.q.shape[2], *z.shape[2:])
    out[groups.query[groups.real]] = z[groups.real]
    return out[None]


def _numbered(count: list[int], key_count: list[int], example: list[int], most: int) -> list[int]:
    """The group of each row: neighbours of one example, as many as fit."""
    numbers, filled, number, last = [], 0, -1, -1
    for queries, keys, here in zip(count, key_count, example, strict=True):
        if not queries and not keys:
            numbers.append(max(number, 0))
            continue
        size = max(queries, keys)
        if here != last or filled + size > most:
            number, filled, last = number + 1, 0, here
        filled += size
        numbers.append(number)
    return numbers


def _padded(group: Int[Tensor, " token"], groups: int) -> tuple[Int[Tensor, "group slot"], Bool[Tensor, "group slot"]]:
    """The tokens of each group side by side, and which slots hold one; `group` must ascend."""
    count = torch.bincount(group, minlength=groups)
    start = count.cumsum(0) - count
    slot = torch.arange(int(count.max()))
    real = slot[None] < count[:, None]
    return torch.where(real, start[:, None] + slot, 0), real
