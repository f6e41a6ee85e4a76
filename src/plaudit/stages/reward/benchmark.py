"""A reward model on the file of a published benchmark: every response scored, one line for each prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.config.sections import DataSection
from plaudit.data.benchmarks.layouts import Case
from plaudit.data.benchmarks.load import Benchmark
from plaudit.data.benchmarks.names import TITLES
from plaudit.data.reading.transcripts import as_messages
from plaudit.errors import DataError
from plaudit.records import Ranking
from plaudit.runs.directory import announce
from plaudit.runs.files import BENCHMARK, merge_json, read_json, read_lines, write_lines
from plaudit.runtime import ScoringRuntime, TextFormat
from plaudit.stages.encode import encode_rows, prompt_id, readable, reward_encoder, tell_of
from plaudit.stages.reward.members import Moments
from plaudit.stages.reward.scores import unit_scores
from plaudit.stages.said import Said


def folder_of(benchmark: Benchmark, source: str) -> str:
    """A name for the results that says of which benchmark they are: many files of benchmarks are called "test"."""
    parts = [Path(part).name for part in source.split(",")]
    return f"{benchmark.name}-{re.sub(r'[^A-Za-z0-9_-]+', '-', '-'.join(parts))[:60]}"


def score_benchmark(
    run: Path, target: Path, model: ScoringRuntime, benchmark: Benchmark, data: DataSection, said: Said
) -> None:
    """Write benchmark.jsonl into ``target``, and what was said into its summary.json.

    A prompt is left out as a whole where one of its responses is too long: the scores of some responses are no choice
    among all of them. It has a line too, with the reason.

    Raises:
        DataError: no prompt is left, or the chat template refuses one.
    """
    announce({"benchmark": f"{TITLES[benchmark.name]}, {len(benchmark.cases)} prompts"})
    said.note(benchmark.notes)
    text = model.format
    data = readable(text, data, said)
    as_chat = text.is_encoder or reads_chats(run / "model", text)
    if not text.is_encoder:
        how = f"a turn of the user ({text.chat.name})" if as_chat else "plain text, as the model was trained"
        said.note([f"the prompts of the benchmark are read as {how}"])
    records = {key: _record(key, case, as_chat) for key, case in benchmark.cases.items()}
    wanted = [record for key, record in records.items() if not benchmark.cases[key].left_out]
    if not wanted:
        reasons = {case.left_out for case in benchmark.cases.values()}
        what = f"none of {len(records)} prompts is scored: {', '.join(sorted(reasons))}"
        raise DataError(what, where=benchmark.places.source, cure="give the whole file of the benchmark")
    rows = encode_rows(wanted, reward_encoder(text, wanted[0]), data, benchmark.places, text.chat)
    tell_of(rows, benchmark.places.source, said)
    said.note(text.chat.notes)
    scores = dict(zip((r.id for r in rows.records), unit_scores(model.scorer, rows, text.pad_id), strict=True))
    lengths = {r.id: [sum(row.mask) for row in unit] for r, unit in zip(rows.records, rows.encoded, strict=True)}
    found = {key: {"scores": scores[key], "lengths": lengths[key]} for key in scores}
    too_long = f"longer than {data.max_length} tokens"
    lines = [
        _line(benchmark, case, records[key]) | found.get(key, {"left_out": case.left_out or too_long})
        for key, case in benchmark.cases.items()
    ]
    write_lines(target / BENCHMARK, lines)
    cut = {"benchmark_cut": rows.report.truncated}
    merge_json(target / "summary.json", {"command": "benchmark", "notes": list(said.messages)} | cut)


def reads_chats(directory: Path, text: TextFormat) -> bool:
    """Whether a reward model was trained on chats: the opening of the assistant's turn stands in its probe rows.

    Benchmarks give the prompt as a text, and mean a message of a user. A model that was trained on plain texts has
    never seen what a chat template writes. Without probe rows: yes.
    """
    probe: list[list[int]] = read_json(directory / "probe.json").get("tokens") or []
    # Without words in one of them, so that they share no token of the words themselves.
    one, other = (text.chat.prompt_ids(as_messages(words, "user")) for words in ("", "a"))
    shared = 0
    while shared < min(len(one), len(other)) and one[-1 - shared] == other[-1 - shared]:
        shared += 1
    opening = one[len(one) - shared :]
    if not probe or not opening:
        return True
    return any(opening == row[at : at + shared] for row in probe for at in range(len(row) - shared + 1))


def _record(key: str, case: Case, as_chat: bool) -> Ranking:
    """A case as the stages encode it: one row for each response."""
    prompt = as_messages(case.prompt, "user") if as_chat else case.prompt
    return Ranking(key, prompt, case.responses, tuple(1 if right else 2 for right in case.correct))


def _line(benchmark: Benchmark, case: Case, record: Ranking) -> dict[str, Any]:
    return {
        "benchmark": benchmark.name,
        "id": case.id or record.id,
        "prompt_id": prompt_id(record),
        "subset": case.subset,
        "groups": list(case.groups),
        "correct": list(case.correct),
        "pairs": [list(pair) for pair in case.pairs],
    }


def combine_benchmark(target: Path, paths: Sequence[Path], moments: Sequence[Moments]) -> dict[str, Any]:
    """Write the mean of the members' normalised scores into ``target``; see `members.combine_heldout`."""

    def combined(values: Sequence[float]) -> float:
        return fmean((value - mean) / std for value, (mean, std) in zip(values, moments, strict=True))

    lines = []
    for rows in zip(*(read_lines(path / BENCHMARK) for path in paths), strict=True):
        line = rows[0]
        if "scores" in line:
            line = line | {"scores": [combined(each) for each in zip(*(r["scores"] for r in rows), strict=True)]}
        lines.append(line)
    write_lines(target / BENCHMARK, lines)
    first = read_json(paths[0] / "summary.json")
    return {"members": len(paths)} | {name: first[name] for name in ("command", "notes", "benchmark_cut")}
