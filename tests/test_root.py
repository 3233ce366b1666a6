"""The root names: lazy, complete, and the same for a type checker as at run time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import openwork


@pytest.mark.parametrize("name", openwork.__all__)
def test_every_name_it_lists_exists(name: str) -> None:
    value = getattr(openwork, name)
    assert value is getattr(openwork, name)
    assert value if isinstance(value, str) else getattr(value, "__name__", "").endswith(name)


def test_the_type_checker_knows_the_same_names() -> None:
    tree = ast.parse(Path(openwork.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told | {"__version__"} == set(openwork.__all__) == set(dir(openwork))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = openwork.no_such_name  # pyright: ignore[reportAttributeAccessIssue]
