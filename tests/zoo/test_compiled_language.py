"""What the language refuses, what the interpreter says, and how variables are named and copied."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from openwork.errors import BadInput
from openwork.zoo.compiled import Domain, Plan, Program, compile_program
from openwork.zoo.compiled.compile import renamed
from openwork.zoo.compiled.interpret import interpret
from openwork.zoo.compiled.language import (
    BOS,
    Aggregate,
    Indices,
    Map,
    Prefer,
    Select,
    SelectorWidth,
    Share,
    Tokens,
    Variable,
    earliest,
    in_order,
    latest,
)

TOKENS = Tokens(words=(BOS, "a", "b"))
INDICES = Indices(context=5)
SAME = Select(TOKENS, TOKENS, lambda key, query: key == query != BOS)
ROW = (BOS, "a", "b", "a", "a")


def program(output: Variable, words=TOKENS.words, length: int = 5) -> Program:
    return Program("test", output, Domain(words, length, lambda rng: ROW), lambda row: row)


def test_previous_word_by_select_and_aggregate():
    before = Aggregate("before", Select(INDICES, INDICES, lambda key, query: key == query - 1), TOKENS)
    assert interpret(before, ROW, causal=True)["before"] == (BOS, BOS, "a", "b", "a")


def test_a_query_that_selects_nothing_looks_at_the_first_position():
    none = Aggregate("none", Select(TOKENS, TOKENS, lambda key, query: False), INDICES)
    assert interpret(none, ROW, causal=True)["none"] == (0,) * 5


def test_preferences_choose_among_the_selected():
    first = Aggregate("first", replace(SAME, prefer=earliest(INDICES)), INDICES)
    last = Aggregate("last", replace(SAME, prefer=latest(INDICES)), INDICES)
    assert interpret(first, ROW, causal=False)["first"] == (0, 1, 2, 1, 1)
    assert interpret(last, ROW, causal=False)["last"] == (0, 4, 2, 4, 4)


def test_width_counts_what_is_seen():
    width = SelectorWidth("width", SAME, 4)
    assert interpret(width, ROW, causal=True)["width"] == (0, 1, 1, 2, 3)
    assert interpret(width, ROW, causal=False)["width"] == (0, 3, 1, 3, 3)


def test_share_is_of_the_selected():
    words = Select(INDICES, TOKENS, lambda key, query: key > 0)
    share = Share("share", words, TOKENS, lambda word: word == "a", 4)
    assert interpret(share, ROW, causal=True)["share"] == (0, 1, Fraction(1, 2), Fraction(2, 3), Fraction(3, 4))


def test_given_values_stand_instead_of_computed_ones():
    before = Aggregate("before", Select(INDICES, INDICES, lambda key, query: key == query - 1), TOKENS)
    both = Map("both", lambda a, b: a == b, (before, TOKENS))
    run = interpret(both, ROW, causal=True, given={"before": ("a",) * 5})
    assert run["both"] == (False, True, False, True, True)


def test_keys_that_disagree_have_no_single_value():
    mixed = Aggregate("mixed", Select(INDICES, TOKENS, lambda key, query: key > 0), TOKENS)
    with pytest.raises(BadInput, match="one value of 'mixed' at position 2"):
        interpret(mixed, ROW, causal=True)


def test_combination_declared_impossible_is_refused_where_it_occurs():
    never = Map("never b", lambda word: None if word == "b" else word, TOKENS)
    with pytest.raises(BadInput, match="cannot occur; it does at position 2"):
        interpret(never, ROW, causal=True)


def test_word_outside_the_tokens_is_refused():
    with pytest.raises(BadInput, match="expected 'tokens' among its 3 values; got 'z'"):
        interpret(TOKENS, (BOS, "z"), causal=True)


def test_cycle_is_refused():
    first = Map("first", lambda x: x, TOKENS)
    second = Map("second", lambda x: x, first)
    object.__setattr__(first, "inputs", (second,))
    with pytest.raises(BadInput, match="no variable defined by itself; got the cycle"):
        in_order(second)


def test_predicate_that_raises_is_refused():
    with pytest.raises(BadInput, match=r"the predicate of 'tokens' and 'indices' .* raised TypeError"):
        Select(TOKENS, INDICES, lambda key, query: key < query)


def test_function_that_raises_is_refused():
    with pytest.raises(BadInput, match=r"the function of 'number' .* raised ValueError"):
        Map("number", int, TOKENS)


def test_values_outside_the_declared_set_are_refused():
    with pytest.raises(BadInput, match="expected 'odd' within its declared values"):
        Map("odd", lambda i: i % 2, INDICES, declared=(1,))


def test_number_as_key_is_refused():
    width = SelectorWidth("width", SAME, 4)
    with pytest.raises(BadInput, match="expected categorical keys and queries; 'width' is not"):
        Select(width, TOKENS, lambda key, query: True)


def test_number_beside_other_inputs_is_refused():
    width = SelectorWidth("width", SAME, 4)
    with pytest.raises(BadInput, match="one numerical variable alone"):
        Map("both", lambda w, t: t, (width, TOKENS))


def test_number_cannot_be_aggregated_or_counted():
    width = SelectorWidth("width", SAME, 4)
    with pytest.raises(BadInput, match="bring a categorical variable"):
        Aggregate("brought", SAME, width)
    with pytest.raises(BadInput, match="count a categorical variable"):
        Share("share", SAME, width, bool, 4)


def test_aggregate_without_heads_is_refused():
    with pytest.raises(BadInput, match="at least one head"):
        Aggregate("none", SAME, TOKENS, heads=0)


def test_count_with_preference_is_refused():
    preferring = replace(SAME, prefer=latest(INDICES))
    with pytest.raises(BadInput, match="without preference"):
        SelectorWidth("width", preferring, 4)
    with pytest.raises(BadInput, match="without preference"):
        Share("share", preferring, TOKENS, lambda word: True, 4)


def test_rank_that_is_no_integer_is_refused():
    with pytest.raises(BadInput, match="expected integer ranks"):
        Prefer(TOKENS, lambda word: word)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [("a", BOS), (BOS, "a", "a"), ()])
def test_vocabulary_is_of_different_words_bos_first(words):
    with pytest.raises(BadInput, match="different words, 'bos' first"):
        Tokens(words=words)


def test_context_of_bos_alone_is_refused():
    with pytest.raises(BadInput, match="context"):
        Indices(context=1)


def test_two_variables_of_one_name_are_refused():
    one, other = (Map("same", lambda x: x, TOKENS) for _ in range(2))
    with pytest.raises(BadInput, match=r"several are called \['same'\]"):
        in_order(Map("both", lambda x, y: x, (one, other)))


def test_what_is_no_variable_of_the_language_is_refused():
    with pytest.raises(BadInput, match="expected variables of the language; got Variable"):
        in_order(Variable("odd"))


def test_width_below_the_number_of_directions_is_refused():
    copy = Map("copy", lambda word: word, TOKENS)
    compile_program(program(copy), Plan(width=11))
    with pytest.raises(BadInput, match="a basis of at least 11 directions"):
        compile_program(program(copy), Plan(width=10))


def test_context_shorter_than_the_rows_is_refused():
    here = Map("here", lambda i: TOKENS.words[i % 2], INDICES)
    with pytest.raises(BadInput, match=r"a context of at least 9, .* a basis too small"):
        program(here, length=9)


def test_output_that_is_a_number_is_refused():
    with pytest.raises(BadInput, match="expected a categorical output"):
        program(SelectorWidth("width", SAME, 4))


def test_answers_outside_the_vocabulary_are_refused():
    with pytest.raises(BadInput, match="expected answers among the 3 words"):
        program(Map("count", lambda i: i, INDICES))


def test_tokens_that_are_not_those_of_the_domain_are_refused():
    with pytest.raises(BadInput, match="to be the words of its domain"):
        program(Map("copy", lambda word: word, TOKENS), words=(BOS, "b", "a"))


def test_inputs_outside_the_vocabulary_or_the_context_are_refused():
    copying = program(Map("copy", lambda word: word, TOKENS))
    assert copying.encode([ROW]) == ((0, 1, 2, 1, 1),)
    with pytest.raises(BadInput, match="got 'z'"):
        copying.encode([(BOS, "z")])
    with pytest.raises(BadInput, match=r"expected at most 5 words, .* got 6"):
        copying.encode([(*ROW, "a")])
    with pytest.raises(BadInput, match="'a' first"):
        copying.encode([("a", "b")])


def test_task_without_a_row_of_another_answer_is_refused():
    with pytest.raises(BadInput, match="whose answers differ"):
        program(Map("copy", lambda word: word, TOKENS)).task(4)


def test_copy_shares_tokens_and_indices_and_nothing_else():
    before = Aggregate("before", Select(INDICES, INDICES, lambda key, query: key == query - 1), TOKENS, heads=4)
    both = Map("both", lambda a, b: a == b, (before, TOKENS))
    copy = renamed(both, "'", shares=2)
    assert {v.name for v in in_order(copy)} == {"tokens", "indices", "before'", "both'"}
    assert {v for v in in_order(copy) if v in in_order(both)} == {TOKENS, INDICES}
    assert next(v.heads for v in in_order(copy) if isinstance(v, Aggregate)) == 2
    assert interpret(copy, ROW, True)["both'"] == interpret(both, ROW, True)["both"]
