"""One frame for every scoreboard: methods × networks × seeds, what each found, what it cost; resumable.

Each network is a job of its own process; an entry is on disk as soon as its method is done, and is not made again.
"""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from openwork.boards.cost import metered
from openwork.boards.problem import Problem
from openwork.boards.schema import Board, Entry
from openwork.boards.scoring import Answer, scored
from openwork.boards.subjects import NETWORK, Subject, kind_of, require_subject, subject
from openwork.errors import BadInput, CorruptFile, OpenworkError, UnknownName
from openwork.evidence import code_hash, record_provenance
from openwork.store.files import read_json, write_json
from openwork.store.hashing import hash_json
from openwork.zoo.member import open_member, require_member

RECORD = "board.json"
ENTRIES = "entries"
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Terms:
    """What holds for every contender alike.

    Args:
        examples: of each task, half of them held out.
        alpha: accepted rate of false support.
        claims: how many items a method that ranks items may make claims of.
        seeds: of examples and methods; each is an entry of its own.
        workers: networks worked on at once, each in a process with one thread.

    Raises:
        BadInput: a knob outside its range.
    """

    examples: int = 48
    alpha: float = 0.1
    claims: int = 3
    seeds: Sequence[int] = (0,)
    workers: int = 2

    def __post_init__(self) -> None:
        if self.examples < 4 or not 0 < self.alpha < 0.5 or self.claims < 1 or not self.seeds or self.workers < 1:
            raise BadInput(
                f"expected 4 examples or more, alpha between 0 and .5, and one claim, seed and worker; got {self}"
            )


Ask = Callable[[Any, Terms, int], Answer]
"""Asks a method about a `Problem`, or about a `Subject` of another kind, on terms, with a seed."""


@dataclass(frozen=True)
class Contender:
    """A method as a scoreboard asks it.

    Args:
        about: one sentence on what it does.
        items: what it names: components, edges, ...
        look: asks it: (problem, terms, seed) -> what it says.
        truth: the items of a problem that take part.
        barred: why it cannot be asked about a problem; empty if it can.
        kind: what it is asked about: networks, or another kind of `subjects`.
    """

    about: str
    items: str
    look: Ask
    truth: Callable[[Any], frozenset[str]]
    barred: Callable[[Any], str] = lambda problem: ""
    kind: str = NETWORK


@dataclass(frozen=True)
class _Job:
    """One network and seed, with all methods that are still to be asked."""

    board: str
    model: str
    seed: int
    methods: tuple[str, ...]
    terms: Terms
    folder: Path


def contenders(board: str) -> Mapping[str, Contender]:
    """The methods of a board.

    Raises:
        UnknownName: if there is no such board.
    """
    if board not in BOARDS:
        raise UnknownName.among("board", board, BOARDS)
    return import_module(f"openwork.boards.{board}").CONTENDERS


BOARDS = ("causal", "reading", "seeing")


def compete(
    board: str,
    models: Sequence[str],
    folder: Path,
    terms: Terms = Terms(),
    *,
    subset: Literal["quick", "whole", "chosen"] = "chosen",
    methods: Sequence[str] | None = None,
    tick: Tick = lambda share: None,
) -> Board:
    """Ask every method about every network, and keep what each says against what is true.

    Args:
        board: which board, e.g. ``causal``.
        models: names in the zoo, or of `subjects`; those of nulls begin with ``null/``. Each method has entries for
            those of its kind.
        folder: where entries and ``board.json`` go. Entries that are there, of this code and these terms, are kept.
        terms: what holds for all.
        subset: what `models` and `methods` are, for the record.
        methods: which of the board's; all unless given.
        tick: told the share that is done.

    Returns:
        the board, as written.

    Raises:
        UnknownName: for a board, method or network that does not exist.
        CorruptFile: for an entry that cannot be read.
        KeyboardInterrupt: on Ctrl-C; what is done is kept, and the same call goes on.
    """
    known = contenders(board)
    names = list(known if methods is None else methods)
    for name in names:
        if name not in known:
            raise UnknownName.among("method", name, known)
    kept = folder / ENTRIES / _key(terms)
    for model in models:
        (require_member if kind_of(model) == NETWORK else require_subject)(model)
    fits = {(name, model) for name in names for model in models if known[name].kind == kind_of(model)}
    jobs = []
    for model, seed in itertools.product(models, terms.seeds):
        missing = tuple(n for n in names if (n, model) in fits and not _path(kept, n, model, seed).exists())
        if missing:
            jobs.append(_Job(board, model, seed, missing, terms, kept))
    _work(jobs, terms.workers, tick)
    entries = [
        _read(_path(kept, name, model, seed))
        for name in names
        for model in models
        if (name, model) in fits
        for seed in terms.seeds
    ]
    found = Board(
        schema="openwork/board",
        name=board,
        subset=subset,
        alpha=terms.alpha,
        examples=terms.examples,
        methods={name: known[name].about for name in names},
        entries=tuple(entries),
        provenance=record_provenance("the zoo", hash_json(list(models)), _key(terms), "cpu", torch.float32),
    )
    write_json(folder / RECORD, found.model_dump(mode="json", by_alias=True))
    return found


def load(folder: Path) -> Board:
    """Read a board that `compete` wrote.

    Args:
        folder: its folder, or the file itself.

    Raises:
        BadInput: if there is none.
        CorruptFile: if it is damaged or of another schema.
    """
    path = folder if folder.suffix == ".json" else folder / RECORD
    try:
        found = Board.model_validate(read_json(path))
    except ValidationError as error:
        raise CorruptFile(f"expected a scoreboard in {path}; {error.errors()[0]['msg']} (run it again)") from error
    # files have sorted keys; a method that the board has no more stands last
    known = [*contenders(found.name)] if found.name in BOARDS else []
    order = sorted(found.methods, key=lambda name: known.index(name) if name in known else len(known))
    return found.model_copy(update={"methods": {name: found.methods[name] for name in order}})


def _work(jobs: Sequence[_Job], workers: int, tick: Tick) -> None:
    if workers == 1:
        for number, job in enumerate(jobs):
            _carry_out(job)
            tick((number + 1) / len(jobs))
        return
    pool = ProcessPoolExecutor(min(workers, max(1, len(jobs))), get_context("spawn"), _one_thread)
    try:
        for number, future in enumerate(as_completed([pool.submit(_carry_out, job) for job in jobs])):
            future.result()
            tick((number + 1) / len(jobs))
    finally:
        # after an error or Ctrl-C, what has begun ends and is kept, and nothing else begins
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)


def _carry_out(job: _Job) -> None:
    known = contenders(job.board)
    problem = (
        Problem.of(open_member(job.model), job.terms.examples, job.seed)
        if kind_of(job.model) == NETWORK
        else subject(job.model)
    )
    for name in job.methods:
        entry = _entry(name, known[name], problem, job)
        write_json(_path(job.folder, name, job.model, job.seed), entry.model_dump(mode="json"))


def _entry(name: str, contender: Contender, problem: Problem | Subject, job: _Job) -> Entry:
    entry = Entry(
        method=name, model=job.model, family=problem.family, seed=job.seed, items=contender.items,
        reason=contender.barred(problem),
    )  # fmt: skip
    if entry.reason:
        return entry
    forward = problem.forward
    try:
        with metered() as meter:
            answer = contender.look(problem, job.terms, job.seed)
    except OpenworkError as error:
        # a refusal is an outcome, and is shown as one
        return entry.model_copy(update={"reason": traceback.format_exception_only(error)[-1].strip()})
    found = scored(answer, contender.truth(problem))
    return entry.model_copy(update={"recovery": found, "cost": meter.cost(forward)})


def _key(terms: Terms) -> str:
    """What an entry depends on but method, network and seed."""
    return hash_json([code_hash(), terms.examples, terms.alpha, terms.claims])[:16]


def _path(folder: Path, method: str, model: str, seed: int) -> Path:
    return folder / (re.sub(r"[^\w.+-]+", "-", f"{method}--{model}--{seed}") + ".json")


def _read(path: Path) -> Entry:
    try:
        return Entry.model_validate(read_json(path))
    except ValidationError as error:
        raise CorruptFile(f"expected an entry of a scoreboard in {path}; delete it and run again") from error
