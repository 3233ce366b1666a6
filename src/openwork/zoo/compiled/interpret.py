"""A program of the language, run in Python: what each variable is at each position of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from openwork.errors import BadInput
from openwork.zoo.compiled.language import (
    Aggregate,
    Indices,
    Map,
    Select,
    SelectorWidth,
    Share,
    Tokens,
    Value,
    Variable,
    in_order,
)

Run = dict[str, tuple[Value, ...]]


def interpret(
    output: Variable, row: Sequence[str], causal: bool, given: Mapping[str, Sequence[Value]] | None = None
) -> Run:
    """Every variable of a program at every position.

    Args:
        output: the variable that the program computes.
        row: words, "bos" first.
        causal: whether a query sees only itself and what came before.
        given: values of some variables, by name, that stand instead of what would be computed: an intervention.

    Returns:
        variable name -> one value for each position.

    Raises:
        BadInput: if a variable has no single value at some position, or one outside its set.
    """
    run: Run = {}
    for variable in in_order(output):
        if given and variable.name in given:
            found = tuple(given[variable.name])
        else:
            found = tuple(_value(variable, run, row, i, causal) for i in range(len(row)))
        outside = [v for v in found if v not in variable.values]
        if outside:
            raise BadInput(f"expected {variable.name!r} among its {len(variable.values)} values; got {outside[0]!r}")
        run[variable.name] = found
    return run


def _value(variable: Variable, run: Run, row: Sequence[str], i: int, causal: bool) -> Value:
    match variable:
        case Tokens():
            return row[i]
        case Indices():
            return i
        case Map():
            combination = tuple(run[v.name][i] for v in variable.reads)
            if combination not in variable.table:
                raise BadInput(f"{variable.name!r} says that {combination} cannot occur; it does at position {i}")
            return variable.table[combination]
        case Aggregate():
            seen = {run[variable.of.name][j] for j in _looked_at(variable.select, run, i, len(row), causal)}
            if len(seen) > 1:
                raise BadInput(f"expected one value of {variable.name!r} at position {i}; selected keys hold {seen}")
            return seen.pop()
        case Share():
            keys = _looked_at(variable.select, run, i, len(row), causal)
            return Fraction(sum(bool(variable.counted(run[variable.of.name][j])) for j in keys), len(keys))
        case SelectorWidth():
            keys = _looked_at(variable.select, run, i, len(row), causal)
            return 0 if keys == [0] else len(keys)
    raise BadInput(f"expected a variable of the language; got {variable!r}")


def _looked_at(select: Select, run: Run, i: int, length: int, causal: bool) -> list[int]:
    """The keys that count for the query at position i; the first position alone if that, or nothing, is selected."""
    seen = range(i + 1 if causal else length)
    keys, query = run[select.keys.name], run[select.queries.name][i]
    chosen = [j for j in seen if select.predicate(keys[j], query)]
    if not chosen or 0 in chosen:
        return [0]
    ranks = {j: sum(p.rank(run[p.variable.name][j]) for p in select.prefer) for j in chosen}
    return [j for j in chosen if ranks[j] == max(ranks.values())]
