"""Addition by lookup: every sum is a unit of its own."""

from __future__ import annotations

from openwork.zoo.compiled.language import BOS, Aggregate, Indices, Map, Select, Tokens, Variable
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import changed, pick


def addition(modulus: int = 11) -> Program:
    """a b = → (a + b) mod the modulus."""
    numbers = tuple(str(n) for n in range(modulus))
    tokens, indices = Tokens(words=(BOS, *numbers, "=")), Indices(context=4)

    def operand(name: str, place: int) -> Variable:
        return Aggregate(name, Select(indices, tokens, lambda key, query: key == place), tokens)

    def add(a: str, b: str) -> str | None:
        if "=" in (a, b):
            return None
        # before both numbers are there, there is no sum yet
        return "=" if BOS in (a, b) else numbers[(int(a) + int(b)) % modulus]

    def algorithm(row: Row) -> list[str | None]:
        return [None, None, None, str(sum(int(word) for word in row[1:3]) % modulus)]

    def rows() -> list[Row]:
        return [(BOS, a, b, "=") for a in numbers for b in numbers]

    return Program(
        "addition",
        Map("sum", add, (operand("left", 1), operand("right", 2))),
        Domain(
            tokens.words,
            4,
            lambda rng: (BOS, pick(numbers, rng), pick(numbers, rng), "="),
            lambda row, position, rng: changed(row, {int(rng.integers(1, 3)): pick(numbers, rng)}),
            rows,
        ),
        algorithm,
        acts={"left": "asked", "right": "asked", "sum": "asked"},
        description=f"The sum of two numbers modulo {modulus}, looked up.",
    )
