"""The layouts of benchmark files: told apart by their columns, and how a row of each becomes a case."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plaudit.data.benchmarks.names import (
    BEST_OF,
    CORRECTNESS_COLUMNS,
    CORRECTNESS_SETS,
    FLAGS,
    NO_WINNER,
    PRIOR_SETS,
    REWARDBENCH_2_SUBSETS,
    REWARDBENCH_SUBSETS,
    SECTION_OF,
    STYLES,
    TIES,
    BenchmarkName,
)
from plaudit.data.reading.exports.shapes import strength_of
from plaudit.data.reading.fields import Fields
from plaudit.data.reading.names import Assigned
from plaudit.data.reading.rows import ReadLog, Row, number_of, shorten, shorten_names
from plaudit.data.reading.structures import structure_in
from plaudit.records import Content

_TIE_ID = re.compile(r"(ref|tied):\d+")
_RESPONSE = re.compile(r"response_(\d+)")
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_SETS = {"mmlu": "MMLU-Pro", "gpqa": "GPQA", "mbpp": "MBPP-Plus", "ifeval": "IFEval", "math": "MATH"}
"""Part of a file's name -> set of PPE correctness."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt with its responses, and which of them are right."""

    id: str
    """As the benchmark names it; some names come up several times."""
    prompt: Content
    responses: tuple[str, ...]
    correct: tuple[bool, ...]
    """For each response. In a comparison the preferred one is right."""
    subset: str
    groups: tuple[str, ...] = ()
    """Further groups that the case is counted in."""
    pairs: tuple[tuple[int, int], ...] = ()
    """(right, wrong): the responses that the benchmark compares; empty: as its rule says."""
    left_out: str = ""
    """Why the benchmark does not score it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One benchmark's files."""

    name: BenchmarkName
    fits: Callable[[Row], bool]
    """Whether a row has its columns."""
    parse: Callable[[Fields, str], Case]
    """A row as a case, given the stem of its file; faults are listed."""
    somewhere: Callable[[Row], bool] = lambda row: True
    """What must hold of one row at least."""


def has(row: Row, *names: str) -> bool:
    """Whether a row has a value for each of the columns; an empty CSV cell is none."""
    values = [row.values.get(name) for name in names]
    return all(value is not None and not (row.cells and value == "") for value in values)


def listed(value: Any) -> list[Any] | None:
    """The list in a value: of JSON, Parquet or numpy, or stored as text. None: it is no list.

    >>> listed('["a", "b"]'), listed(np.array(["a"])), listed("a [b]")
    (['a', 'b'], ['a'], None)
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str):
        value = structure_in(value)
    return list(value) if isinstance(value, (list, tuple)) else None


def _two_lists(row: Row) -> bool:
    """Whether `chosen` and `rejected` are lists of texts; one of them may be empty."""
    sides = [listed(row.values.get(name)) for name in ("chosen", "rejected")]
    texts = [text for side in sides for text in side or ()]
    return None not in sides and bool(texts) and all(isinstance(text, str) for text in texts)


def _is_of_rewardbench(row: Row) -> bool:
    return row.values.get("subset") in REWARDBENCH_SUBSETS


def _is_rewardbench(row: Row) -> bool:
    named = has(row, "chosen_model", "rejected_model") or _is_of_rewardbench(row)
    return named and has(row, "prompt", "chosen", "rejected") and not _two_lists(row)


def _is_rewardbench_2(row: Row) -> bool:
    counts = ("num_correct", "num_incorrect", "num_rejected", "total_completions")
    named = any(has(row, name) for name in counts) or row.values.get("subset") in REWARDBENCH_2_SUBSETS
    return named and has(row, "prompt") and _two_lists(row)


def _is_rm_bench(row: Row) -> bool:
    if not has(row, "prompt", "domain") or not _two_lists(row):
        return False
    return all(len(listed(row.values[name]) or ()) == len(STYLES) for name in ("chosen", "rejected"))


def _is_ppe_human(row: Row) -> bool:
    named = any(row.values.get(name) is not None for name in FLAGS if name != "is_code")
    return named and has(row, "prompt", "response_1", "response_2", "winner")


def _is_ppe_correctness(row: Row) -> bool:
    return has(row, "prompt", "response_1", "response_2", "scores") and listed(row.values["scores"]) is not None


# Rows


def fields_of(row: Row, log: ReadLog) -> Fields:
    """The fields of a row, each read from the column of its name; arrays of numpy are lists."""
    values = {name: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for name, v in row.values.items()}
    columns: dict[str, tuple[str, ...]] = {name: (name,) for name in values}
    return Fields(dataclasses.replace(row, values=values), log, Assigned(columns=columns))


def _prompt(fields: Fields) -> Content:
    # Not read as a transcript: what people paste into a prompt is part of it.
    prompt = fields.content("prompt")
    if not prompt and not fields.faulty:
        fields.fault("prompt", "an empty prompt", "write a prompt, or remove the row")
    return prompt


def _name(fields: Fields, column: str, what: str, known: Sequence[str]) -> str:
    """The subset or domain of a row, which must be there; one of the benchmark's in the benchmark's spelling."""
    name = (fields.label(column) or "").strip() if fields.has(column) else ""
    if not name:
        fields.fault(column, "nothing", f"name the {what} of the row: {shorten_names(known, 6)}, or one of your own")
    return next((each for each in known if each.lower() == name.lower()), name)


def _responses(fields: Fields, name: str) -> list[str]:
    """A list of one text or more."""
    texts = [fields.checked(value, f"{name}[{i}]") for i, value in enumerate(fields.items(name))]
    if not texts and not fields.faulty:
        fields.fault(name, "a list of 0", "give at least one response, or remove the row")
    return texts


def _case(fields: Fields, chosen: Sequence[str], rejected: Sequence[str], subset: str) -> Case:
    responses = (*chosen, *rejected)
    fields.log.count("empty responses", sum(not text.strip() for text in responses))
    identity = fields.label("id") or fields.label("question_id") or ""
    correct = (True,) * len(chosen) + (False,) * len(rejected)
    return Case(identity, _prompt(fields), responses, correct, subset)


def rewardbench(fields: Fields, stem: str) -> Case:
    """`prompt`, `chosen`, `rejected`, `subset`; rows of a file of a prior set are of the set that it is named after."""
    known = fields.row.values.get("subset") in REWARDBENCH_SUBSETS
    subset = "" if known else prior_set(stem)
    subset = subset or _name(fields, "subset", "subset", tuple(SECTION_OF))
    return _case(fields, [fields.text("chosen")], [fields.text("rejected")], subset)


def prior_set(stem: str) -> str:
    """The prior set of RewardBench that a file is named after; "" if there is none.

    >>> prior_set("anthropic_hhh-00000-of-00001"), prior_set("filtered")
    ('anthropic_hhh', '')
    """
    return next((name for name in PRIOR_SETS if stem.startswith(name)), "")


def rewardbench_2(fields: Fields, stem: str) -> Case:
    """`prompt`, lists `chosen` and `rejected`, `subset`; of Ties, `id` says which two questions belong together."""
    chosen, rejected = _responses(fields, "chosen"), _responses(fields, "rejected")
    subset = _name(fields, "subset", "subset", REWARDBENCH_2_SUBSETS)
    sizes = {
        "num_correct": len(chosen),
        "num_incorrect": len(rejected),
        "num_rejected": len(rejected),
        "total_completions": len(chosen) + len(rejected),
    }
    for name, size in sizes.items():
        if not fields.faulty and fields.has(name) and fields.whole(fields.value(name), name) != size:
            fields.fault(name, shorten(fields.value(name)), f"the lists of the row have {size}: mend one of the two")
    case = _case(fields, chosen, rejected, subset)
    if subset == TIES:
        if not fields.faulty and not _TIE_ID.fullmatch(case.id):
            cure = "expected ref:NUMBER for a question with one right answer, or tied:NUMBER for one with several"
            fields.fault("id", shorten(case.id), cure)
        return case
    fields.log.count(f"prompts with another number of responses than {BEST_OF}", len(case.responses) != BEST_OF)
    return case


def rm_bench(fields: Fields, stem: str) -> Case:
    """`prompt`, three `chosen` and three `rejected` responses, one in each style, `domain`."""
    sides = {name: _responses(fields, name) for name in ("chosen", "rejected")}
    for name, texts in sides.items():
        if texts and len(texts) != len(STYLES):
            fields.fault(name, f"{len(texts)} responses", f"expected {len(STYLES)}: {', '.join(STYLES)}")
    domains = ("chat", "code", "math", "safety-refuse", "safety-response")
    return _case(fields, sides["chosen"], sides["rejected"], _name(fields, "domain", "domain", domains))


def ppe_human(fields: Fields, stem: str) -> Case:
    """`prompt`, `response_1`, `response_2`, `winner`, and flags that say what the prompt asks for."""
    first, second = fields.text("response_1"), fields.text("response_2")
    winner = fields.value("winner")
    strength = strength_of(winner)
    if strength is None:
        fields.fault("winner", shorten(winner), "expected model_a, model_b or tie")
    groups = [words for name, words in FLAGS.items() if fields.has(name) and _truth(fields, name, fields.value(name))]
    if language := fields.label("language"):
        groups.append("English" if language.lower() == "english" else "other languages")
    case = _case(fields, [first], [second], "")
    correct = (strength == -1, strength == 1)
    left_out = NO_WINNER if strength == 0 else ""
    return dataclasses.replace(case, correct=correct, groups=tuple(groups), left_out=left_out)


def ppe_correctness(fields: Fields, stem: str) -> Case:
    """`prompt`, `response_1` to `response_32`, `scores`, `sampled_conflict_pairs`, `model_name`."""
    numbers = sorted(int(match[1]) for name in fields.columns if (match := _RESPONSE.fullmatch(name)))
    names = [f"response_{number}" for number in numbers if fields.has(f"response_{number}")]
    texts = [fields.text(name) for name in names]
    if len(texts) < 2:
        fields.fault("response_2", f"{len(texts)} responses", "give at least two, or remove the row")
    values = fields.items("scores")
    if len(values) != len(texts) and not fields.faulty:
        fields.fault("scores", f"{len(values)} for {len(texts)} responses", "expected one for each")
    truths = tuple(_truth(fields, f"scores[{i}]", value) for i, value in enumerate(values))
    case = _case(fields, texts, [], _correctness_set(fields, stem))
    pairs = () if fields.faulty else _conflicts(fields, truths)
    groups = tuple(filter(None, (fields.label("model_name"),)))
    return dataclasses.replace(case, correct=truths, pairs=pairs, groups=groups)


def _truth(fields: Fields, name: str, value: Any) -> bool:
    truth = _TRUTHS.get(str(value).strip().lower()) if value is not None else None
    if truth is None:
        fields.fault(name, shorten(value), "expected true or false, or 1 or 0")
    return bool(truth)


def _correctness_set(fields: Fields, stem: str) -> str:
    """Which set a row is of: its columns tell, else the name of its file; else that name is a set of its own."""
    by_column = (name for name, columns in CORRECTNESS_COLUMNS.items() if any(map(fields.has, columns)))
    by_name = (name for part, name in _SETS.items() if part in stem.lower())
    name = next(by_column, "") or next(by_name, stem)
    assert name in CORRECTNESS_SETS or name == stem, "sets have the names of the benchmark"
    return name


def _conflicts(fields: Fields, truths: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """(right, wrong) of each pair that the row names; of all such pairs, where it names none."""
    if not fields.has("sampled_conflict_pairs"):
        wrong = [i for i, truth in enumerate(truths) if not truth]
        fields.log.count("prompts without sampled_conflict_pairs: each right response is compared with each wrong one")
        return tuple((i, j) for i, truth in enumerate(truths) if truth for j in wrong)
    pairs = []
    for at, pair in enumerate(fields.items("sampled_conflict_pairs")):
        ends = [number_of(end) for end in listed(pair) or ()]
        known = [int(end) for end in ends if end is not None and end in range(len(truths))]
        if len(ends) != 2 or len(known) != 2 or truths[known[0]] == truths[known[1]]:
            cure = "expected the places, from 0 on, of a right response and of a wrong one"
            fields.fault(f"sampled_conflict_pairs[{at}]", _shown(ends), cure)
        else:
            pairs.append((known[0], known[1]) if truths[known[0]] else (known[1], known[0]))
    return tuple(pairs)


def _shown(ends: Sequence[Any]) -> str:
    return f"[{', '.join(map(shorten, ends[:4]))}{', ...' * (len(ends) > 4)}]"


LAYOUTS: tuple[Layout, ...] = (
    Layout("ppe-correctness", _is_ppe_correctness, ppe_correctness),
    Layout("ppe-human", _is_ppe_human, ppe_human),
    Layout("rm-bench", _is_rm_bench, rm_bench),
    Layout("rewardbench-2", _is_rewardbench_2, rewardbench_2),
    # Who wrote the two responses is said by other data too, so a subset must be known.
    Layout("rewardbench", _is_rewardbench, rewardbench, _is_of_rewardbench),
)
"""Those that need more columns first."""
