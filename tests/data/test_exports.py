"""Exports of other tools and public layouts: what each file in ``exports/`` becomes, written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plaudit.data.load import load_records
from plaudit.data.reading.exports.table import EXPORTS
from plaudit.records import Demonstration, Judgement, Message, Preference, Ranking, Rating, Record

FILES = Path(__file__).parent / "exports"


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


COLOUR, DAY = "Name a colour.", "Name a day."
ASKED = (user(COLOUR),)
SHORT = Message("system", "Be short.")
BEFORE = (SHORT, user("Hi"), assistant("Hello."))


def rating(
    identity: str, reward: float, axes: dict[str, float], response: str = "Red.", prompt: Any = COLOUR
) -> Rating:
    return Rating(identity, prompt, response, reward, axes)


def verdict(
    identity: str, strength: int, *, prompt: Any = COLOUR, a: Any = "Red.", b: Any = "Seven.", **more: Any
) -> Judgement:
    return Judgement(identity, prompt, a, b, strength, **more)


def pair(identity: str, prompt: Any = ASKED, margin: float | None = None) -> Preference:
    return Preference(identity, prompt, "Red.", "Seven.", margin)


ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
Case = tuple[str, Sequence[Record], Sequence[str], int]
"""Name of the export, records, fields that are not used, rows and parts of rows that are left out."""

CASES: dict[str, Case] = {
    "argilla_1_records.json": (
        "Argilla 1 records", [verdict("r1/ann", -1, annotator="ann")],
        ["metadata", "responses.values.why", "suggestions"], 2,
    ),
    "argilla_1_table.jsonl": (
        "Argilla 1 table", [Ranking("t1/ann", COLOUR, ("Red.", "Blue.", "Seven."), (2, 1, 3))],
        ["metadata"], 0,
    ),
    "argilla_2_records.json": (
        "Argilla 2 records",
        [
            verdict("r1/ann", -1, model_a="sft", model_b="ppo", annotator="ann"),
            verdict("r1/bob", 0, model_a="sft", model_b="ppo", annotator="bob"),
        ],
        ["_server_id", "status", "suggestions"], 0,
    ),
    "argilla_2_table.jsonl": (
        "Argilla 2 table", [rating("r1/ann", 4, {})], ["_server_id", "quality.suggestion", "status", "topic"], 1,
    ),
    "arena.csv": (
        "arena battles in columns",
        [
            verdict(
                "30192", -1, prompt=ASKED, model_a="x", model_b="y",
                a=(assistant("Red."), user("Sure?"), assistant("Yes.")),
                b=(assistant("Seven."), user("Sure?"), assistant("")),
            ),
            verdict("30193", 0, prompt=(user(DAY),), a="May.", b="Monday.", model_a="x", model_b="y"),
        ],
        [], 0,
    ),
    "arena.jsonl": (
        "arena battles",
        [
            verdict("q1", 1, prompt=ASKED, a="Seven.", b="Red.", model_a="x", model_b="y", annotator="arena_user_1"),
            verdict(
                "q2", 0, prompt=(user(DAY),), model_a="x", model_b="y", annotator="arena_user_2",
                a=(assistant("May."), user("Sure?"), assistant("Yes.")),
                b=(assistant("June."), user("Sure?"), assistant("No.")),
            ),
        ],
        ["language"], 0,
    ),
    "helpsteer.jsonl": (
        "HelpSteer ratings",
        [
            rating(
                "helpsteer-1", 3, {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0},
                prompt=ASKED,
            )
        ],
        [], 0,
    ),
    "helpsteer2_disagreements.jsonl": (
        "HelpSteer2 disagreements",
        [
            rating(
                "helpsteer2_disagreements-1", 3.5,
                {"helpfulness": 3.5, "correctness": 4, "coherence": 4, "complexity": 0.5, "verbosity": 0}, prompt=ASKED,
            )
        ],
        [], 0,
    ),
    "helpsteer2_preference.jsonl": (
        "HelpSteer2 preferences",
        [
            verdict(
                f"helpsteer2_preference-1/{who}", strength, prompt=(user(DAY), assistant("May."), user("Really?")),
                a="Yes.", b="No, Monday.", annotator=who, margin=margin,
            )
            for who, strength, margin in (("1", 2, 3), ("2", 0, 0))
        ],
        [
            "all_preferences_unprocessed", "preference_elaboration", "preference_statement", "split",
            "three_most_similar_preferences.elaboration", "three_most_similar_preferences.statement",
        ], 0,
    ),
    "helpsteer3.jsonl": (
        "HelpSteer3 preferences",
        [
            verdict("helpsteer3-1/1", -2, prompt=ASKED, annotator="1", margin=3),
            verdict("helpsteer3-1/2", -1, prompt=ASKED, annotator="2", margin=1),
        ],
        [
            "domain", "individual_preference.feedback1", "individual_preference.feedback2",
            "individual_preference.reasoning", "language",
        ], 0,
    ),
    "label_studio.json": (
        "Label Studio", [verdict("1/3", -1, annotator="3"), verdict("1/4", 1, annotator="4")],
        [
            "annotations.completed_by.email", "annotations.id", "annotations.lead_time", "annotations.result.id",
            "project",
        ], 2,
    ),
    "label_studio_min.json": (
        "Label Studio JSON-MIN", [verdict("1/3", -1, annotator="3"), verdict("1/4", 1, annotator="4")],
        ["annotation_id", "created_at", "lead_time", "updated_at"], 0,
    ),
    "langfuse_items.jsonl": (
        "Langfuse dataset items",
        [Demonstration("i1", COLOUR, "Red."), Demonstration("i2", (user(DAY),), "Monday.")],
        ["datasetId", "datasetName", "metadata", "sourceTraceId"], 1,
    ),
    "langfuse_traces.jsonl": (
        "Langfuse traces with scores", [rating("t1", 2, {"helpful": 3, "safe": 1})], ["scores.source", "userId"], 1,
    ),
    "langsmith_examples.jsonl": (
        "LangSmith examples",
        [Demonstration("e1", COLOUR, "Red."), Demonstration("e2", (user(DAY),), "Monday.")],
        ["created_at", "dataset_id", "metadata"], 0,
    ),
    "langsmith_runs.jsonl": (
        "LangSmith runs with feedback", [rating("run1", 0.5, {})], ["feedback_stats.correct.n", "trace_id"], 0,
    ),
    "llama_factory.jsonl": (
        "LLaMA-Factory instructions",
        [
            pair("llama_factory-1", (*BEFORE, user("Name a colour\n\nof roses."))),
            Preference("llama_factory-2", (user(DAY),), "Monday.", "May."),
        ],
        [], 0,
    ),
    "llama_factory_kto.jsonl": (
        "LLaMA-Factory instructions",
        [
            rating("llama_factory_kto-1", 1, {}, prompt=ASKED),
            rating("llama_factory_kto-2", 0, {}, "May.", (user(DAY),)),
        ],
        [], 0,
    ),
    "llama_factory_sharegpt.jsonl": (
        "ShareGPT pairs (LLaMA-Factory)", [pair("llama_factory_sharegpt-1", (SHORT, user(COLOUR)))], [], 0,
    ),
    "llama_factory_sharegpt_kto.jsonl": (
        "conversations with a label (KTO)", [rating("llama_factory_sharegpt_kto-1", 1, {}, prompt=ASKED)], [], 0,
    ),
    "ms_swift.jsonl": (
        "ms-swift messages with a rejected response",
        [pair("ms_swift-1", (user("Hi"), assistant("Hello."), user(COLOUR)))], [], 0,
    ),
    "ms_swift_exchanges.jsonl": (
        "ms-swift exchanges", [Demonstration("ms_swift_exchanges-1", (*BEFORE, user(COLOUR)), "Red.")], [], 0,
    ),
    "ms_swift_messages.jsonl": (
        "ms-swift messages with a rejected response", [pair("ms_swift_messages-1")], [], 0,
    ),
    "ms_swift_query.jsonl": (
        "ms-swift query and response", [pair("ms_swift_query-1", (*BEFORE, user(COLOUR)))], [], 0,
    ),
    "nectar.jsonl": (
        "Nectar", [Ranking("nectar-1", ASKED, ("Red.", "Seven.", "Reddish."), (1, 3, 2))],
        ["answers.model", "good_natured", "num_responses", "source", "turns"], 0,
    ),
    "oasst_messages.jsonl": (
        "Open Assistant messages", [Ranking("m0", ASKED, ("Seven.", "Red."), (2, 1))], ["lang", "user_id"], 1,
    ),
    "oasst_trees.jsonl": (
        "Open Assistant trees",
        [
            Ranking("m0", ASKED, ("Seven.", "Red."), (2, 1)),
            Ranking("m3", (*ASKED, assistant("Red."), user("Another?")), ("Six.", "Blue."), (2, 1)),
        ],
        [
            "prompt.lang", "prompt.replies.lang", "prompt.replies.replies.lang", "prompt.replies.replies.replies.lang",
            "tree_state",
        ], 0,
    ),
    "openai_preference.jsonl": (
        "OpenAI preferences", [Preference("openai_preference-1", (Message("user", "2+2?", tools=(ADD,)),), "4", "5")],
        ["input.parallel_tool_calls"], 0,
    ),
    "prodigy_choice.jsonl": (
        "Prodigy choice",
        [verdict("5/ann", 1, annotator="ann"), verdict("7/ann", 0, prompt=DAY, a="May.", b="Monday.", annotator="ann")],
        ["_input_hash"], 1,
    ),
    "prodigy_compare.jsonl": (
        "Prodigy compare",
        [
            verdict("q1/s-ann", 1, a="Seven.", b="Red.", model_a="A", model_b="B", annotator="s-ann"),
            verdict("q2/s-ann", 1, prompt=DAY, a="May.", b="Monday.", model_a="A", model_b="B", annotator="s-ann"),
        ],
        [], 1,
    ),
    "rewardbench.jsonl": ("RewardBench", [pair("4", COLOUR)], ["chosen_model", "rejected_model", "subset"], 0),
    "rewardbench_2.jsonl": (
        "RewardBench 2", [Ranking("b1", COLOUR, ("Red.", "Seven.", "Six."), (1, 2, 2))],
        ["models", "num_correct", "num_incorrect", "subset", "total_completions"], 0,
    ),
    "rm_bench.jsonl": (
        "lists of chosen and rejected responses (RM-Bench)",
        [
            Ranking(
                "3", COLOUR, ("Red.", "Red, as roses.", "**Red**", "Six.", "Six, as legs.", "**Six**"),
                (1, 1, 1, 2, 2, 2),
            )
        ],
        ["domain"], 0,
    ),
    "safe_rlhf.jsonl": (
        "PKU-SafeRLHF", [verdict("safe_rlhf-1", -1, model_a="m1", model_b="m2")],
        ["is_response_0_safe", "is_response_1_safe", "safer_response_id"], 0,
    ),
    "shp.jsonl": ("SHP", [pair("p/ca/cb", COLOUR, 4)], ["domain", "score_A", "score_B", "upvote_ratio"], 0),
    "summaries.jsonl": (
        "summarize-from-feedback comparisons",
        [
            verdict(
                "summaries-1", 2, prompt="SUBREDDIT: r/advice\n\nTITLE: Hat\n\nPOST: I lost my hat.\n\nTL;DR:",
                a="no hat", b="I lost my hat", model_a="sup", model_b="ref", annotator="w1", margin=3,
            )
        ],
        ["batch", "info.id", "split", "summaries.note"], 0,
    ),
    "summary_axes.jsonl": (
        "summarize-from-feedback ratings",
        [
            rating(
                "summary_axes-1", 6, {"overall": 6, "accuracy": 7}, "Hat lost.",
                "Article:\nA hat was lost.\n\nTL;DR:",
            )
        ],
        ["batch", "info.id", "info.site", "info.title", "split", "summary.note", "summary.policy", "worker"], 0,
    ),
    "ultrafeedback.jsonl": (
        "UltraFeedback",
        [
            rating(
                "ultrafeedback-1/m1", 4.5,
                {"helpfulness": 5, "honesty": 4, "fine_grained_score": 4.5, "overall_score": 8.5}, prompt=ASKED,
            ),
            rating(
                "ultrafeedback-1/m2", 1.5, {"helpfulness": 1, "fine_grained_score": 1.5, "overall_score": 3},
                "Seven.", ASKED,
            ),
        ],
        [
            "completions.annotations.helpfulness.Rationale", "completions.annotations.honesty",
            "completions.annotations.honesty.Rationale", "completions.critique", "completions.principle",
            "correct_answers", "incorrect_answers", "models", "source",
        ], 0,
    ),
    "ultrafeedback_binarized.jsonl": (
        "pairs with scores (UltraFeedback binarized)", [pair("p1", margin=5.5)], [], 0,
    ),
    "webgpt.jsonl": (
        "WebGPT comparisons",
        [
            verdict("w1", -2, a="Red [1].", margin=1),
            verdict("w2", 0, prompt=DAY, a="May.", b="Monday.", margin=0),
        ],
        ["question.dataset", "quotes_0"], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", sorted(CASES))
def test_each_export_becomes_what_it_is(file: str) -> None:
    name, records, unused, dropped = CASES[file]
    loaded = load_records(str(FILES / file))
    assert list(loaded.records) == list(records)
    assert loaded.format.startswith(f"{name} as ")
    assert (list(loaded.unused), loaded.dropped) == (list(unused), dropped)


def test_every_file_and_every_export_has_its_case() -> None:
    files = {path.name for path in FILES.iterdir()}
    assert files == set(CASES)
    refused = "Langfuse scores or LangSmith feedback without texts"
    assert {name for name, *_ in CASES.values()} == {e.name for e in EXPORTS} - {refused}
