"""The exports that are recognised, by which fields, and what each becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.data.reading.exports import annotation, argilla, pairs, rated, tracing, trainers, trees
from plaudit.data.reading.exports.item import Item, OwnRow, as_number
from plaudit.data.reading.exports.shapes import is_texts
from plaudit.data.reading.rows import ReadLog, Row, shorten_names

Parts = list[tuple[str, list[Row]]]
"""The rows of each file of a source, with the stem of its name."""
Convert = Callable[[Item], list[OwnRow]]
Gather = Callable[[Sequence[Item]], list[tuple[Item, OwnRow]]]
Check = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Export:
    """One export or public layout: the fields that tell it, and how its rows become rows of our own layouts."""

    name: str
    becomes: str
    """The kind of record, and what is kept of the verdict."""
    needs: tuple[str, ...]
    """Fields that must have a value; "a|b" where either will do."""
    convert: Convert | None
    check: Check = lambda values: True
    """What else must hold of a row, where the names alone are too common."""
    somewhere: Check = lambda values: True
    """What must hold of at least one row."""
    source: str = ""
    """Where the shape was looked up; empty if it was not verified."""
    gather: Gather | None = None
    """In place of ``convert`` where rows only make sense together."""

    def fits(self, row: Row) -> bool:
        """Whether a row has this shape."""
        values = row.values
        named = all(any(values.get(name) is not None for name in names.split("|")) for names in self.needs)
        return named and self.check(values)


def _lists_of_texts(values: Mapping[str, Any]) -> bool:
    return is_texts(values.get("chosen")) and is_texts(values.get("rejected"))


def _no_texts(values: Mapping[str, Any]) -> bool:
    return not any(name in values for name in ("input", "output", "inputs", "outputs", "prompt", "response", "text"))


_CARD, _DOCS, _CODE = "its card", "the project's documentation", "the project's code"
_READ = "code of others that reads it"

# The order decides where several fit: shapes with more, and more special, fields stand first.
EXPORTS: tuple[Export, ...] = (
    # Tools
    Export(
        "OpenAI preferences", "preference; tools kept",
        ("input", "preferred_output", "non_preferred_output"), trainers.openai_preference, source=_DOCS,
    ),
    Export(
        "Argilla 1 records", "judgement, ranking or rating by annotator; ids and models kept",
        ("fields", "responses"), argilla.records_1, argilla.is_records_1, source=_CODE,
    ),
    Export(
        "Argilla 2 records", "judgement, ranking or rating by annotator; ids and models kept",
        ("fields", "responses"), argilla.records_2, argilla.is_records_2, source=_CODE,
    ),
    Export(
        "Argilla 1 table", "as its records", (), argilla.table_1, argilla.is_table_1, source=_CODE,
    ),
    Export(
        "Argilla 2 table", "as its records", (), argilla.table_2, argilla.is_table_2, source=_CODE,
    ),
    Export(
        "Label Studio", "judgement, ranking or rating by annotator; skipped annotations are counted",
        ("data", "annotations|completions"), annotation.label_studio, annotation.is_task, source=_DOCS,
    ),
    Export(
        "Label Studio JSON-MIN", "judgement by annotator",
        ("annotation_id", "annotator"), annotation.label_studio_min, source=_CODE,
    ),
    Export(
        "Prodigy choice", "judgement (two options) or ranking (more) by annotator",
        ("options",), annotation.prodigy_choice, annotation.has_options, source=_READ,
    ),
    Export(
        "Prodigy compare", "judgement by annotator; the systems of `mapping` are the models",
        ("accept", "reject", "answer"), annotation.prodigy_compare, annotation.has_two_outputs, source=_CODE,
    ),
    Export(
        "Langfuse traces with scores", "rating; several scores are axes",
        ("input", "output", "scores"), tracing.langfuse_trace,
    ),
    Export(
        "Langfuse dataset items", "demonstration; prompt where no output is expected",
        ("input", "datasetId|datasetName|sourceTraceId|dataset_id|expectedOutput|expected_output"),
        tracing.langfuse_item, source=_DOCS,
    ),
    Export(
        "LangSmith runs with feedback", "rating; several keys are axes",
        ("inputs", "outputs", "feedback_stats"), tracing.langsmith_run,
    ),
    Export(
        "LangSmith examples", "demonstration; preference where the outputs are chosen and rejected",
        ("inputs",), tracing.langsmith_example, lambda values: isinstance(values["inputs"], dict), source=_DOCS,
    ),
    Export(
        "Langfuse scores or LangSmith feedback without texts", "refused: they name traces and runs only",
        ("traceId|trace_id|run_id|runId", "value|score", "name|key"), tracing.without_texts, _no_texts, source=_DOCS,
    ),
    # Public data sets
    Export(
        "Open Assistant messages", "ranking of the replies to each turn of a user; without ranks, demonstration",
        ("message_id", "text", "role"), None, lambda values: "parent_id" in values, source=_READ, gather=trees.flat,
    ),
    Export(
        "Open Assistant trees", "as its messages", ("message_tree_id", "prompt"), None,
        lambda values: isinstance(values["prompt"], dict), source=_READ, gather=trees.nested,
    ),
    Export(
        "arena battles", "judgement: winner, models, who judged; both bad is a tie, counted",
        ("conversation_a", "conversation_b", "winner"), pairs.battle, source=_CARD,
    ),
    Export(
        "arena battles in columns", "judgement: winner, models",
        ("prompt", "response_a", "response_b", "winner|winner_model_a"), pairs.battle_in_columns, source=_READ,
    ),
    Export(
        "HelpSteer3 preferences", "judgement of each annotator: strength 2 from 2 on, margin 1 to 3",
        ("context", "response1", "response2", "overall_preference"), rated.helpsteer3_preference, source=_CARD,
    ),
    Export(
        "HelpSteer2 preferences", "judgement of each annotator: strength 2 from 2 on, margin 1 to 3",
        ("prompt", "response_1", "response_2", "preference_strength"), rated.helpsteer2_preference, source=_CARD,
    ),
    Export(
        "HelpSteer ratings", "rating with axes; the reward is the helpfulness",
        ("prompt", "response", *rated.HELPSTEER_AXES), rated.helpsteer,
        lambda values: as_number(values["helpfulness"]) is not None, source=_CARD,
    ),
    Export(
        "HelpSteer2 disagreements", "rating; axes are the means of the annotators",
        ("prompt", "response", *rated.HELPSTEER_AXES), rated.helpsteer_disagreements,
        lambda values: isinstance(values["helpfulness"], list), source=_CARD,
    ),
    Export(
        "UltraFeedback", "rating of each completion, with axes",
        ("instruction", "completions"), rated.ultrafeedback,
        lambda values: isinstance(values["completions"], (list, dict)), source=_READ,
    ),
    Export(
        "pairs with scores (UltraFeedback binarized)", "preference; the margin is the difference of the scores",
        ("chosen|chosen_response", "rejected|rejected_response"), pairs.scored_pair,
        lambda values: pairs.score_names(values) is not None, source=_READ,
    ),
    Export("Nectar", "ranking", ("prompt", "answers"), rated.nectar,
        lambda values: isinstance(values["answers"], (list, dict))),
    Export(
        "SHP", "preference; the margin is `score_ratio`",
        ("history", "human_ref_A", "human_ref_B", "labels"), pairs.shp, source=_READ,
    ),
    Export(
        "WebGPT comparisons", "judgement; the margin is the score, 0 to 1",
        ("question", "answer_0", "answer_1", "score_0"), pairs.webgpt, source=_READ,
    ),
    Export(
        "summarize-from-feedback comparisons", "judgement: worker, policies; the margin is the confidence, 0 to 4",
        ("info", "summaries", "choice"), pairs.summaries, source=_DOCS,
    ),
    Export(
        "summarize-from-feedback ratings", "rating with axes",
        ("info", "summary", "worker"), pairs.rated_summary, source=_DOCS,
    ),
    Export(
        "PKU-SafeRLHF", "judgement: the better response, or the safer one on request",
        ("prompt", "response_0", "response_1", "better_response_id|safer_response_id"), pairs.safe_rlhf, source=_READ,
    ),
    Export(
        "RewardBench", "preference", ("prompt", "chosen", "rejected", "chosen_model", "rejected_model"),
        pairs.rewardbench,
    ),
    Export(
        "RewardBench 2", "ranking: every chosen response before every rejected one",
        ("prompt", "chosen", "rejected", "num_correct|num_incorrect|total_completions"), pairs.chosen_and_rejected,
        _lists_of_texts, source=_CARD,
    ),
    Export(
        "lists of chosen and rejected responses (RM-Bench)", "ranking: every chosen response before every rejected one",
        ("prompt", "chosen", "rejected"), pairs.chosen_and_rejected, _lists_of_texts,
    ),
    # Other trainers
    Export(
        "LLaMA-Factory instructions", "preference, rating or demonstration; system and history are turns",
        ("instruction",), trainers.instruction, trainers.is_instruction, trainers.has_more_than_output, _DOCS,
    ),
    Export(
        "ms-swift messages with a rejected response", "preference",
        ("messages|conversations", "rejected_response|rejected_messages"), trainers.rejected_besides,
        trainers.is_conversation, source=_DOCS,
    ),
    Export(
        "ms-swift query and response", "preference, rating, demonstration or prompt; system and history are turns",
        ("query|prompt", "response"), trainers.query,
        somewhere=trainers.has_more_than_response,
        source=_DOCS,
    ),
    Export(
        "ShareGPT pairs (LLaMA-Factory)", "preference",
        ("conversations|messages", "chosen", "rejected"), trainers.conversation_pair,
        trainers.ends_before_response, source=_DOCS,
    ),
    Export(
        "conversations with a label (KTO)", "rating: true is 1, false is 0",
        ("conversations|messages", "kto_tag|label"), trainers.conversation_label, trainers.has_label, source=_DOCS,
    ),
    Export(
        "ms-swift exchanges", "demonstration", ("conversation",), trainers.exchanges,
        lambda values: isinstance(values["conversation"], list)
        and all(isinstance(one, dict) and {"human", "assistant"} <= one.keys() for one in values["conversation"]),
        source=_DOCS,
    ),
)  # fmt: skip


def read_exports(parts: Parts, log: ReadLog, asked: Mapping[str, str] | None = None) -> tuple[Parts, str]:
    """The rows in our own layouts and the name of the export; unchanged, with "", if they are none.

    What no record holds, and what is left out, goes to ``log``.

    Args:
        asked: names that the caller gave: our name of a field, and the export's.
    """
    export = _recognised([row for _, part in parts for row in part])
    if export is None:
        return parts, ""
    items = [[Item(row, log, f"{stem}-{row.number}", asked) for row in part] for stem, part in parts]
    every = [item for part in items for item in part]
    made = export.gather(every) if export.gather else [pair for item in every for pair in _converted(item, export)]
    own: dict[int, list[Row]] = {}
    for item, values in made:
        if not item.faulty:
            known = {name: value for name, value in values.items() if value is not None}
            row = dataclasses.replace(item.row, values={"id": item.identity, **known}, cells=False)
            own.setdefault(id(item.row), []).append(row)
    # Rows that are left out are counted, and say nothing of the fields that were not used.
    given = every if export.gather else [item for item in every if id(item.row) in own]
    unused = sorted({name for item in given for name in item.unused()} - set(log.unused))
    log.unused += unused
    if unused:
        log.note(f"fields not used: {shorten_names(unused)}")
    return [(stem, [new for row in part for new in own.get(id(row), [])]) for stem, part in parts], export.name


def together(parts: Parts) -> list[Parts]:
    """The parts in groups that are read at once: rows that only make sense together may stand in several files.

    So trees of messages that were split into shards are whole again; any other part is a group of its own.
    """
    groups: dict[object, Parts] = {}
    for number, part in enumerate(parts):
        export = _recognised(part[1])
        groups.setdefault(export.name if export and export.gather else number, []).append(part)
    return list(groups.values())


def _converted(item: Item, export: Export) -> list[tuple[Item, OwnRow]]:
    assert export.convert is not None, "an export converts each row, or gathers all"
    before = item.log.dropped
    rows = export.convert(item)
    if not rows and not item.faulty and item.log.dropped == before:
        item.log.leave_out("rows that give no record, left out")
    return [(item, values) for values in rows]


def _recognised(rows: Sequence[Row]) -> Export | None:
    """The first export that at least half of the rows fit: rows that do not are faults of these rows."""
    for export in EXPORTS:
        enough = rows and 2 * sum(map(export.fits, rows)) >= len(rows)
        if enough and any(export.somewhere(row.values) for row in rows):
            return export
    return None
