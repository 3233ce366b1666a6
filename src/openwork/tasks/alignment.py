"""Whether clean and corrupted inputs correspond: token by token, or group by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from openwork.errors import BadInput, Misaligned
from openwork.tasks.examples import Example

SHOWN = 12


def require_correspondence(
    example: Example, where: str, tokens: Callable[[Sequence[int]], list[str]] | None = None
) -> None:
    """Check that every position of the clean run has its counterpart in the corrupted run.

    Args:
        example: equally long rows correspond token by token; rows of unequal length need token groups, each with as
            many positions in both.
        where: which example it is, for the message.
        tokens: ids -> texts, for the message; the ids themselves if not given.

    Raises:
        Misaligned: if they do not correspond; the message shows both rows side by side.
        BadInput: if both rows are the same, or a group lies outside its row.
    """
    clean, corrupted = example.clean, example.corrupted
    if clean == corrupted:
        raise BadInput(f"{where}: expected corrupted to differ from clean; both are the same {len(clean)} tokens")
    for side, row, groups in (("clean", clean, example.groups), ("corrupted", corrupted, example.groups_corrupted)):
        for name, positions in groups.items():
            if any(not 0 <= p < len(row) for p in positions):
                raise BadInput(
                    f"{where}: expected positions of {side} in 0..{len(row) - 1}; group {name!r} has {positions}"
                )
    table = None
    if len(clean) != len(corrupted) and not example.groups.keys() - {"last"}:
        table = (
            f"{where}: expected clean and corrupted of equal length, or groups that name what corresponds; "
            f"got {len(clean)} and {len(corrupted)} tokens and no groups"
        )
    for name in sorted(example.groups.keys() | example.groups_corrupted.keys()):
        counts = [len(groups.get(name, ())) for groups in (example.groups, example.groups_corrupted)]
        if counts[0] != counts[1]:
            table = f"{where}: expected group {name!r} to have as many tokens in both; got {counts[0]} and {counts[1]}"
    if table:
        show = tokens or (lambda ids: [str(i) for i in ids])
        raise Misaligned(f"{table}\n{side_by_side(show(clean), show(corrupted))}")


def side_by_side(clean: Sequence[str], corrupted: Sequence[str]) -> str:
    """Both rows of tokens, one position a line, the first difference marked.

    Args:
        clean: the tokens of the clean row.
        corrupted: the tokens of the corrupted row.

    Returns:
        At most `SHOWN` lines, around the first difference.
    """
    rows = list(zip_longest(map(repr, clean), map(repr, corrupted), fillvalue="-"))
    first = next((i for i, (a, b) in enumerate(rows) if a != b), len(rows))
    start = max(0, min(first - 3, len(rows) - SHOWN))
    width = max(len("clean"), *(len(a) for a, _ in rows))
    lines = [f"    position  {'clean':<{width}}  corrupted"]
    for i, (a, b) in enumerate(rows[start : start + SHOWN], start):
        lines.append(
            f"{'>' if i == first else ' ':>3} {i:>8}  {a:<{width}}  {b}{'  <- first difference' if i == first else ''}"
        )
    left = len(rows) - start - SHOWN
    return "\n".join([*lines, f"    … {left} more"] if left > 0 else lines)
