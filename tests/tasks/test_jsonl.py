from __future__ import annotations

import json
import re

import pytest
import torch

from openwork.errors import BadInput, Misaligned
from openwork.tasks import PROBABILITY, from_jsonl, from_tokens
from openwork.tasks.jsonl import FIELDS

RECORD = {"clean": "a cat sat: ", "corrupted": "a dog sat: ", "answer": "cat", "wrong": "dog"}
OTHER = {"clean": "the sun is up: ", "corrupted": "the sky is up: ", "answer": "sun", "wrong": "sky"}


@pytest.fixture
def write(tmp_path):
    def write(*lines: str | dict, end: str = "\n"):
        path = tmp_path / "mine.jsonl"
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + end for line in lines)
        path.write_bytes(text.encode())
        return path

    return write


def test_the_task_is_that_of_the_file(write, characters):
    # cat and dog differ in the first character, sun and sky in the second: the shared "s" belongs to the prompt
    task = from_jsonl(write(RECORD, OTHER), characters, metric=PROBABILITY)
    assert task.name == "mine"
    assert task.metric is PROBABILITY
    assert [characters.decode(ids) for ids in task.clean.ids] == ["a cat sat: ", "the sun is up: s"]
    assert [characters.decode(ids) for ids in task.corrupted.ids] == ["a dog sat: ", "the sky is up: s"]
    assert characters.decode(task.answer) == "cu"
    assert characters.decode(task.wrong) == "dk"
    assert task.at == (10, 15)
    assert len(task.held_out) == 1
    assert task.chance == pytest.approx(1 / 96)


def test_tokens_are_those_of_the_tokenizer(write, tokenizer):
    record = {"clean": "f(x, y):", "corrupted": "f(x, y]:", "answer": " return", "wrong": " in"}
    task = from_jsonl(write(record, record | {"clean": "f(a, y):", "corrupted": "f(a, y]:"}), tokenizer)
    assert task.clean.ids[0] == tuple(tokenizer.encode("f(x, y):"))
    assert task.corrupted.ids[1] == tuple(tokenizer.encode("f(a, y]:"))
    prompt = len(task.clean.ids[0])
    assert task.answer[0] == tokenizer.encode("f(x, y): return")[prompt]
    assert task.wrong[0] == tokenizer.encode("f(x, y): in")[prompt]


def test_line_ends_byte_order_mark_and_blank_lines(write, characters, tmp_path):
    expected = from_jsonl(write(RECORD, OTHER), characters)
    assert from_jsonl(write(RECORD, "", OTHER, "  "), characters) == expected
    assert from_jsonl(write(RECORD, OTHER, end="\r\n"), characters) == expected
    path = write(RECORD, OTHER)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert from_jsonl(path, characters) == expected
    # a line separator of unicode inside a text is no line end
    separated = json.dumps(RECORD | {"groups": {"\u2028": ["cat"]}}, ensure_ascii=False)
    with pytest.raises(BadInput, match="line 3: "):
        from_jsonl(write(separated, OTHER, "{"), characters)


def test_equal_prompts_stay_in_one_split(write, characters):
    rows = [RECORD, OTHER] * 3
    for seed in range(4):
        task = from_jsonl(write(*rows), characters, seed=seed)
        assert task.held_out in ({0, 2, 4}, {1, 3, 5})


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["cat"], [2, 3, 4]),
        ([[2, 4]], [2, 3]),
        (["cat", [0, 1]], [0, 2, 3, 4]),
        ({"clean": ["cat"], "corrupted": ["dog"]}, [2, 3, 4]),
    ],
)
def test_groups_are_positions(write, characters, members, expected):
    task = from_jsonl(write(RECORD | {"groups": {"animal": members}}, OTHER), characters)
    assert task.clean.groups["animal"] == (tuple(expected), ()) == task.corrupted.groups["animal"]
    assert task.clean.groups["last"] == ((10,), (15,))


def test_groups_count_what_stands_in_front(write, tokenizer):
    record = {"clean": "x = (name", "corrupted": "x = [name", "answer": ")", "wrong": "]", "groups": {"open": [[4, 5]]}}
    task = from_jsonl(write(record, record | {"clean": "y = (name"}), tokenizer)
    assert tokenizer.decode([task.clean.ids[0][p] for p in task.clean.groups["open"][0]]) == " ("


def test_prompts_of_unequal_length_need_groups(write, characters):
    record = RECORD | {"corrupted": "a horse sat: ", "wrong": "horse"}
    with pytest.raises(Misaligned) as caught:
        from_jsonl(write(OTHER, record), characters)
    message = str(caught.value)
    assert "line 2" in message
    assert "11 and 13 tokens" in message
    (marked,) = [line for line in message.splitlines() if "first difference" in line]
    assert re.fullmatch(r"\s*>\s+2\s+'c'\s+'h'\s+<- first difference", marked)
    task = from_jsonl(write(OTHER, record | {"groups": {"verb": ["sat"]}}), characters)
    assert task.clean.groups["verb"][1] == (6, 7, 8)
    assert task.corrupted.groups["verb"][1] == (8, 9, 10)
    assert task.corrupted.groups["last"][1] == (12,)
    uneven = record | {"groups": {"animal": {"clean": ["cat"], "corrupted": ["horse"]}}}
    with pytest.raises(Misaligned, match="'animal' to have as many tokens in both; got 3 and 5"):
        from_jsonl(write(OTHER, uneven), characters)


BAD = [
    ("{", r"line 2: expected a JSON object; .* at column 2"),
    ("[1]", "line 2: expected a JSON object; got list"),
    ({k: v for k, v in RECORD.items() if k != "wrong"}, "line 2: .* missing 'wrong'"),
    (RECORD | {"anser": "x"}, "line 2: .* unknown 'anser'"),
    (RECORD | {"clean": ""}, "line 2: expected 'clean' to be a text that is not empty"),
    (RECORD | {"answer": ""}, "line 2: expected 'answer' to be a text"),
    (RECORD | {"answer": 3}, "line 2: expected 'answer' to be a text.* got 3"),
    (RECORD | {"answer": None}, "line 2: .* got None"),
    (RECORD | {"wrong": "cat"}, "line 2: expected answer and wrong to differ"),
    (RECORD | {"wrong": "cats"}, "line 2: .* one begins the other"),
    (RECORD | {"corrupted": RECORD["clean"]}, "line 2: expected corrupted to differ from clean"),
    (RECORD | {"groups": ["cat"]}, "line 2: expected 'groups' to be an object"),
    (RECORD | {"groups": {"a": "cat"}}, "line 2, group 'a' in clean: expected a list"),
    (RECORD | {"groups": {"a": []}}, "line 2, group 'a' in clean: expected a list"),
    (RECORD | {"groups": {"a": ["cow"]}}, "found it 0 times"),
    (RECORD | {"groups": {"a": ["a"]}}, "found it 3 times"),
    (RECORD | {"groups": {"a": [[3, 99]]}}, "0 <= start < stop <= 11"),
    (RECORD | {"groups": {"a": [[3, True]]}}, "expected a text or"),
    (RECORD | {"groups": {"a": [7]}}, r"expected a text or \[start, stop\]; got 7"),
    (RECORD | {"groups": {"a": {"clean": ["cat"]}}}, "members for clean and corrupted"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_lines_are_named(write, characters, line, message):
    with pytest.raises(BadInput, match=message):
        from_jsonl(write(RECORD, line, OTHER), characters)


def test_unknown_and_missing_fields_list_what_exists(write, characters):
    with pytest.raises(BadInput) as caught:
        from_jsonl(write({"prompt": "x"}, OTHER), characters)
    assert all(field in str(caught.value) for field in FIELDS)


def test_an_answer_that_melts_into_the_prompt(write, tokenizer):
    record = {"clean": "return act", "corrupted": "return met", "answer": "ion", "wrong": "hod"}
    with pytest.raises(BadInput, match="line 1: expected 'answer' to begin with a token of its own"):
        from_jsonl(write(record, record), tokenizer)


def test_files_that_cannot_be_read(write, characters, tmp_path):
    with pytest.raises(BadInput, match="is empty"):
        from_jsonl(write(""), characters)
    with pytest.raises(BadInput, match="readable JSONL file"):
        from_jsonl(tmp_path / "nothing.jsonl", characters)
    with pytest.raises(BadInput, match=r"at least two examples.* found 1"):
        from_jsonl(write(RECORD), characters)
    path = write(RECORD, OTHER)
    path.write_bytes(path.read_bytes() + b'{"clean": "caf\xe9"}\n')
    with pytest.raises(BadInput, match="line 3: expected UTF-8; got byte 0xe9"):
        from_jsonl(path, characters)


def test_bare_tokens():
    clean, corrupted = [[1, 2, 3], [4, 5, 6], [1, 2, 9]], [[1, 7, 3], [4, 8, 6], [1, 7, 9]]
    groups = {"key": [[1], [1], [1]]}
    task = from_tokens(clean, corrupted, [5, 6, 7], [8, 9, 1], groups=groups, chance=0.1, name="mine")
    assert task.clean.ids == ((1, 2, 3), (4, 5, 6), (1, 2, 9))
    assert (task.answer, task.wrong, task.at) == ((5, 6, 7), (8, 9, 1), (2, 2, 2))
    assert task.clean.groups == {"last": ((2,),) * 3, "key": ((1,),) * 3} == task.corrupted.groups
    assert (task.name, task.chance) == ("mine", 0.1)
    tensors = from_tokens(
        torch.tensor(clean), torch.tensor(corrupted), torch.tensor([5, 6, 7]), torch.tensor([8, 9, 1]),
        groups=groups, chance=0.1, name="mine",
    )  # fmt: skip
    assert tensors == task


def test_bare_tokens_of_unequal_length():
    clean, corrupted = [[1, 2, 3], [4, 5, 6]], [[1, 2, 2, 3], [4, 6]]
    with pytest.raises(Misaligned, match=r"row 0: .* got 3 and 4 tokens"):
        from_tokens(clean, corrupted, [1, 2], [3, 4])
    groups = {"first": [[0], [0]]}
    task = from_tokens(clean, corrupted, [1, 2], [3, 4], groups=groups, groups_corrupted=groups)
    assert task.corrupted.groups == {"last": ((3,), (1,)), "first": ((0,), (0,))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": [1]}, "as many rows of each"),
        ({"groups": {"a": [[0]]}}, "as many rows of each"),
        ({"clean": [], "corrupted": [], "right": [], "wrong": []}, "at least two"),
        ({"clean": [[1, 2], []]}, "row 1: expected at least one token"),
        ({"wrong": [5, 7]}, "row 0: expected right and wrong to differ; both are 5"),
        ({"corrupted": [[1, 2], [3, 5]]}, "row 0: expected corrupted to differ"),
        ({"groups": {"a": [[0], [2]]}}, r"row 1: expected positions of clean in 0..1; group 'a'"),
        ({"clean": [[1, 2], [1, 2]], "corrupted": [[1, 3], [1, 4]]}, "all 2 come from one"),
    ],
)
def test_bare_tokens_that_make_no_task(change, message):
    good = {"clean": [[1, 2], [3, 4]], "corrupted": [[1, 3], [3, 5]], "right": [5, 6], "wrong": [6, 7]}
    assert len(from_tokens(**good)) == 2
    with pytest.raises(BadInput, match=message):
        from_tokens(**(good | change))
