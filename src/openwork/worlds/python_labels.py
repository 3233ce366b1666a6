"""True labels of every character of a Python file, from `tokenize` and `ast`."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from openwork.errors import BadInput

BRACKETS = ("", "(", "[", "{")
CLOSERS = {")": "(", "]": "[", "}": "{"}

_ROLES = ("argument", "attribute", "keyword_argument")

# Python 3.12 takes f-strings apart and 3.11 does not: the labels treat one as a string from end to end on both
_FSTRING_START = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END = getattr(tokenize, "FSTRING_END", None)
_LAYOUT = frozenset({tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER})


@dataclass(frozen=True)
class Word:
    """One identifier as it stands in the text.

    Attributes:
        start: index of its first character.
        name: the identifier.
    """

    start: int
    name: str


@dataclass(frozen=True)
class CharacterLabels:
    """Labels of every character of a text.

    Attributes:
        values: for each label an array of the text's length; the labels are those of
            `openwork.worlds.python_source.LabelledSource`, without "previous".
        words: all identifiers in order, reserved words left out.
    """

    values: dict[str, np.ndarray]
    words: tuple[Word, ...]


def label_characters(text: str, name: str) -> CharacterLabels:
    """Label every character of a Python file.

    Args:
        text: the file, with "\\n" line ends.
        name: for the error message.

    Returns:
        The labels.

    Raises:
        BadInput: if the running Python cannot parse the text; names the file and the line.
    """
    lines = text.split("\n")
    starts = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])])
    tree = _parse(text, name)
    values = {label: np.zeros(len(text), dtype=np.int16) for label in ("bracket_depth", "open_bracket", "indentation")}
    for label in ("string", "comment", "docstring", "keyword", "name", *_ROLES):
        values[label] = np.zeros(len(text), dtype=bool)
    words: dict[int, Word] = {}
    stack: list[str] = []
    settled = 0
    levels = np.full(len(lines) + 1, -1)
    level = 0
    for token, start, end in _tokens(text, name, starts):
        level += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type not in _LAYOUT or token.type == tokenize.NL:
            rows = slice(token.start[0] - 1, token.end[0])
            levels[rows] = np.where(levels[rows] < 0, level, levels[rows])
        if token.type == tokenize.STRING:
            values["string"][start:end] = True
        elif token.type == tokenize.COMMENT:
            values["comment"][start:end] = True
        elif token.type == tokenize.NAME and keyword.iskeyword(token.string):
            values["keyword"][start:end] = True
        elif token.type == tokenize.NAME:
            values["name"][start:end] = True
            words[start] = Word(start, token.string)
        elif token.type == tokenize.OP and (token.string in BRACKETS or token.string in CLOSERS):
            _settle(values, stack, settled, start)
            settled = start
            if token.string in CLOSERS:
                stack.pop()
            else:
                stack.append(token.string)
    _settle(values, stack, settled, len(text))
    for row, line in enumerate(lines):
        if levels[row] < 0:
            levels[row] = levels[row - 1] if row else 0
        values["indentation"][starts[row] : starts[row] + len(line) + 1] = levels[row]
    _mark_roles(tree, lines, starts, values, words)
    return CharacterLabels(values, tuple(words.values()))


def _settle(values: dict[str, np.ndarray], stack: list[str], start: int, end: int) -> None:
    values["bracket_depth"][start:end] = len(stack)
    values["open_bracket"][start:end] = BRACKETS.index(stack[-1]) if stack else 0


def _parse(text: str, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise BadInput(f"{name}, line {error.lineno}: not valid Python for this interpreter ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{name}: this interpreter cannot parse it ({error})") from error


def _tokens(text: str, name: str, starts: np.ndarray) -> Iterator[tuple[tokenize.TokenInfo, int, int]]:
    """Tokens with the indices of their first and past-the-last character; an f-string is one string token."""
    depth = 0
    first: tokenize.TokenInfo | None = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == _FSTRING_START:
                first = first or token
                depth += 1
            elif token.type == _FSTRING_END:
                depth -= 1
                if depth == 0 and first is not None:
                    token = tokenize.TokenInfo(tokenize.STRING, "", first.start, token.end, "")
                    first = None
            if depth == 0:
                yield token, _index(starts, token.start), _index(starts, token.end)
    except tokenize.TokenError as error:
        raise BadInput(f"{name}, line {error.args[1][0]}: not valid Python ({error.args[0]})") from error
    except SyntaxError as error:
        raise BadInput(f"{name}, line {error.lineno}: not valid Python ({error.msg})") from error


def _index(starts: np.ndarray, place: tuple[int, int]) -> int:
    row = min(place[0] - 1, len(starts) - 1)
    return int(starts[row]) + place[1]


def _mark_roles(
    tree: ast.Module, lines: list[str], starts: np.ndarray, values: dict[str, np.ndarray], words: dict[int, Word]
) -> None:
    def index(row: int, byte: int) -> int:
        line = lines[row - 1]
        # ast counts bytes of utf-8
        column = byte if line.isascii() else len(line.encode()[:byte].decode(errors="ignore"))
        return int(starts[row - 1]) + column

    by_end = {word.start + len(word.name): word for word in words.values()}
    for node in ast.walk(tree):
        word, role = None, ""
        if isinstance(node, ast.arg):
            word, role = words.get(index(node.lineno, node.col_offset)), "argument"
        elif isinstance(node, ast.keyword) and node.arg is not None:
            word, role = words.get(index(node.lineno, node.col_offset)), "keyword_argument"
        elif isinstance(node, ast.Attribute):
            word, role = by_end.get(index(*_end(node))), "attribute"
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            _mark_docstring(node, index, values)
        # inside an f-string there are nodes but no words: it counts as one string
        if word is not None:
            values[role][word.start : word.start + len(word.name)] = True


def _mark_docstring(node: ast.AST, index: Callable[[int, int], int], values: dict[str, np.ndarray]) -> None:
    body = getattr(node, "body", [])
    if not (body and isinstance(body[0], ast.Expr)):
        return
    text = body[0].value
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        values["docstring"][index(text.lineno, text.col_offset) : index(*_end(text))] = True


def _end(node: ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset
