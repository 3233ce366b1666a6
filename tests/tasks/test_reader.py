from __future__ import annotations

import pytest

from openwork.errors import BadInput
from openwork.tasks.reader import Reader


class Closing:
    """A tokenizer that closes every text, as those of masked language models do."""

    def encode(self, text):
        return [1, *(ord(c) for c in text), 2]

    def decode(self, ids):
        return "".join({1: "<cls>", 2: "<sep>"}.get(i, chr(i)) for i in ids)


class Lossy(Closing):
    def encode(self, text):
        return [ord(c) for c in text.lower()]


def test_what_stands_in_front_is_found(tokenizer, characters):
    assert Reader.of(tokenizer).begin == (0,)
    assert Reader.of(characters).begin == ()
    assert Reader.of(tokenizer).ids("def f") == tuple(tokenizer.encode("def f"))
    assert Reader.of(tokenizer).body("def f") == tuple(tokenizer.encode("def f", add_special_tokens=False))


def test_a_tokenizer_that_closes_texts_is_refused():
    with pytest.raises(BadInput, match="<sep>"):
        Reader.of(Closing())


def test_a_tokenizer_that_gives_no_list_of_ints_is_refused(tokenizer):
    with pytest.raises(BadInput, match="list of ints"):
        Reader.of(tokenizer.backend_tokenizer)


@pytest.mark.parametrize("text", ["def f(size, mode):\n    return size", "x = 'naïve €uro ✓'", "ß", "  \n  a"])
def test_boundaries_are_the_offsets_of_the_tokenizer(tokenizer, text):
    expected = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    boundaries = Reader.of(tokenizer).boundaries(text)
    assert boundaries[:-1] == [start for start, _ in expected]
    assert boundaries[-1] == len(text)


def test_positions_hold_the_characters(tokenizer):
    reader, text = Reader.of(tokenizer), "def f(size, mode):\n    return size"
    for start in range(len(text)):
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        expected = tuple(i for i, (a, b) in enumerate(offsets) if a <= start < b)
        assert reader.positions(text, start, start + 1) == expected


def test_boundaries_need_a_tokenizer_that_gives_the_text_back():
    reader = Reader.of(Lossy())
    assert reader.boundaries("abc") == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="'aBc' became 'abc'"):
        reader.boundaries("aBc")


def test_a_continuation_that_melts_into_the_text_is_none(tokenizer):
    reader = Reader.of(tokenizer)
    assert reader.vocabulary.decode(list(reader.continuation("self, ".rstrip(), " action"))) == " action"
    assert reader.continuation("return act", "ion") == ()


def test_ordinary_ids_leave_out_special_ones(tokenizer, characters):
    assert Reader.of(tokenizer).ordinary == tuple(range(1, len(tokenizer)))
    assert len(Reader.of(characters).ordinary) == 96
    with pytest.raises(BadInput, match="length"):
        _ = Reader.of(Lossy()).ordinary


def test_empty_text_is_refused(tokenizer):
    with pytest.raises(BadInput, match="at least one token"):
        Reader.of(tokenizer).ids("")
