"""Public data sets in which a row holds two responses, or lists of them, and which were preferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number, unpacked
from plaudit.data.reading.exports.shapes import (
    by_assistant,
    graded,
    is_texts,
    judged,
    models_of,
    ranked,
    shared_prompt,
    turn,
    verdict,
)
from plaudit.data.reading.rows import shorten

# Battles of two models


def battle(item: Item) -> list[OwnRow]:
    """`conversation_a`, `conversation_b`, `winner`; in `turn`, after how many turns of the user it was judged."""
    first, second = item.chat("conversation_a"), item.chat("conversation_b")
    turns = item.number("turn")
    if turns is not None:
        first, second = _until(first, int(turns)), _until(second, int(turns))
    at = shared_prompt(first, second)
    return _battle(item, first[:at], first[at:], second[at:], verdict(item, "winner", item.take("winner")))


def battle_in_columns(item: Item) -> list[OwnRow]:
    """`prompt`, `response_a`, `response_b`: texts, or lists with one for each turn; `winner`, or a column for each."""
    if item.has("winner"):
        strength = verdict(item, "winner", item.take("winner"))
    else:
        a, b, tie = (item.flag(f"winner_{name}") for name in ("model_a", "model_b", "tie"))
        if [a, b, tie].count(True) != 1:
            item.log.leave_out("battles without one winner or tie, left out")
            return []
        strength = -1 if a else 1 if b else 0
    sides = "prompt", "response_a", "response_b"
    if not any(isinstance(unpacked(item.peek(name)), list) for name in sides):
        prompt, one, other = map(item.content, sides)
        return _battle(item, prompt, one, other, strength)
    prompts, first, second = (_texts(item, name) for name in sides)
    if {len(first), len(second)} != {len(prompts)}:
        item.fault("response_a", f"{len(first)} and {len(second)} responses to {len(prompts)} prompts", "one for each")
    chats = [_alternating(prompts, texts) for texts in (first, second)]
    return _battle(item, chats[0][:1], chats[0][1:], chats[1][1:], strength)


def _alternating(prompts: list[str], responses: list[str]) -> list[dict[str, str]]:
    pairs = zip(prompts, responses, strict=False)
    return [each for said, answered in pairs for each in (turn("user", said), turn("assistant", answered))]


def _battle(item: Item, prompt: Any, first: Any, second: Any, strength: int | None) -> list[OwnRow]:
    row = {
        "id": item.label("question_id", "id") or item.identity,
        "prompt": prompt,
        "response_a": first,
        "response_b": second,
        "strength": strength,
        "annotator": item.label("judge", "judge_hash"),
        **models_of(item),
    }
    return [row]


def _until(chat: list[Any], turns: int) -> list[Any]:
    """The first so many exchanges of a chat: MT-bench keeps both turns and judges after the first, too."""
    users = [i for i, each in enumerate(chat) if not by_assistant(each) and (i == 0 or by_assistant(chat[i - 1]))]
    return chat[: users[turns]] if 0 < turns < len(users) else chat


def _texts(item: Item, name: str) -> list[str]:
    texts = [item.take(name)] if isinstance(unpacked(item.peek(name)), str) else item.chat(name)
    if not all(text is None or isinstance(text, str) for text in texts):
        item.fault(name, shorten(texts), "expected a list of texts")
        return []
    item.log.count("turns without a text, read as empty", texts.count(None))
    return [text or "" for text in texts]


# Comparisons by people and by votes


def shp(item: Item) -> list[OwnRow]:
    """`history`, two comments, `labels` (1: A has more votes), `score_ratio`."""
    first_wins = item.flag("labels")
    sides = [item.content("human_ref_A"), item.content("human_ref_B")]
    ids = [item.label(name) for name in ("post_id", "c_root_id_A", "c_root_id_B")]
    item.log.note("the margin is score_ratio, how often more votes the chosen comment has: 1 is equally many")
    row = {"prompt": item.content("history"), "margin": item.number("score_ratio")}
    if first_wins is None:
        item.log.leave_out("pairs without a label, left out")
        return []
    if all(ids):
        row["id"] = "/".join(ids)
    return [row | dict(zip(("chosen", "rejected"), sides if first_wins else sides[::-1], strict=True))]


def webgpt(item: Item) -> list[OwnRow]:
    """`question`, two answers, and their scores from -1 to 1, which are opposite."""
    question = item.peek("question")
    inner = item.item("question") if isinstance(question, dict) else item
    scores = item.number("score_0"), item.number("score_1")
    if scores[0] is None or scores[1] is None:
        item.log.leave_out("comparisons without scores, left out")
        return []
    row = {
        "id": (inner.label("id") if inner is not item else "") or item.identity,
        "prompt": inner.content("full_text") if inner is not item else item.content("question"),
        "response_a": item.content("answer_0"),
        "response_b": item.content("answer_1"),
    }
    return judged(row, [("", *graded((scores[1] - scores[0]) / 2, strong=0.75))])


def summaries(item: Item) -> list[OwnRow]:
    """`info` with the post or article, two `summaries`, `choice`, `worker`; in `extra`, how sure the worker was."""
    both = item.items("summaries")
    choice = item.number("choice")
    if len(both) != 2 or choice not in (0, 1):
        item.fault("choice", shorten(choice), "expected two summaries, and 0 or 1 for the better one")
        return []
    row = {
        "prompt": _post(item.item("info")),
        **{f"response_{x}": str(each.content("text")).strip() for x, each in zip("ab", both, strict=True)},
        **{f"model_{x}": each.label("policy") for x, each in zip("ab", both, strict=True)},
    }
    sure = as_number(item.item("extra").peek("confidence")) if isinstance(item.peek("extra"), dict) else None
    side = 1 if choice else -1
    # From 1 (the first is better for certain) to 9 (the second is): one that contradicts the choice says nothing.
    if sure is None or not 1 <= sure <= 9 or (sure - 5) * side < 0:
        item.log.count("confidences that contradict the choice, not used", sure is not None)
        strength, margin = side, None
    else:
        item.item("extra").take("confidence")
        strength, margin = side * (2 if abs(sure - 5) >= 3 else 1), abs(sure - 5)
    return [row | {"id": item.identity, "strength": strength, "margin": margin, "annotator": item.label("worker")}]


def rated_summary(item: Item) -> list[OwnRow]:
    """`info`, one `summary` with its `axes`, `worker`."""
    summary = item.item("summary")
    axes = summary.take("axes")
    row = {"prompt": _post(item.item("info")), "response": str(summary.content("text")).strip()}
    known = {name: value for name, value in axes.items() if value is not None} if isinstance(axes, dict) else {}
    if not known:
        item.log.leave_out("summaries without a rating, left out")
        return []
    return [row | {"axes": known}]


def _post(info: Item) -> str:
    """The prompt of the paper: subreddit, title, post, "TL;DR:"; or the article."""
    if info.has("article"):
        return f"Article:\n{info.content('article')}\n\nTL;DR:"
    title, post = info.label("title"), info.content("post")
    return f"SUBREDDIT: r/{info.label('subreddit')}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"


def safe_rlhf(item: Item) -> list[OwnRow]:
    """`prompt`, `response_0`, `response_1`, `better_response_id`; which of them is safer is a second verdict."""
    name = item.asked.get("label", "better_response_id")
    index = item.number(name)
    second = "safer_response_id" if name == "better_response_id" else "better_response_id"
    other = as_number(item.peek(second))
    item.log.count(
        f"pairs whose {second} is the other response: {name} counts (--field label={second} takes the other)",
        None not in (other, index) and other != index,
    )
    if index not in (0, 1):
        item.fault(name, shorten(index), "expected 0 or 1")
    row = {
        "prompt": item.content("prompt"),
        "response_a": item.content("response_0"),
        "response_b": item.content("response_1"),
        **{f"model_{x}": item.label(f"response_{i}_source") for i, x in enumerate("ab")},
    }
    return [row | {"strength": 1 if index else -1}]


# Benchmarks of reward models, and pairs with scores


def chosen_and_rejected(item: Item) -> list[OwnRow]:
    """`prompt`, and lists of `chosen` and `rejected` responses: every chosen one is better than every rejected one."""
    chosen, rejected = item.chat("chosen"), item.chat("rejected")
    if not is_texts(chosen) or not is_texts(rejected):
        item.fault("chosen", shorten(chosen), "expected lists of texts in chosen and rejected")
    row = {"id": item.label("id") or item.identity, "prompt": item.content("prompt")}
    # A ranking holds nine: both sides have to be in it.
    kept = chosen[: 9 - min(len(rejected), 4)]
    item.log.leave_out("chosen responses beyond the nine of a ranking, left out", len(chosen) - len(kept))
    return ranked(row, [*kept, *rejected], [1] * len(kept) + [2] * len(rejected), item)


def rewardbench(item: Item) -> list[OwnRow]:
    """`prompt`, `chosen`, `rejected`, who wrote them, and the `subset`."""
    sides = {name: item.content(name) for name in ("chosen", "rejected")}
    return [{"id": item.label("id") or item.identity, "prompt": item.content("prompt"), **sides}]


SCORES = ("score", "rating")


def score_names(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of the scores of `chosen` and `rejected`, in any of the usual spellings."""
    spellings = [(f"{n}_{{}}", f"{{}}_{n}", f"{{}}-{n}", f"{n}-{{}}") for n in SCORES]
    for spelling in (each for some in spellings for each in some):
        names = spelling.format("chosen"), spelling.format("rejected")
        if all(as_number(values.get(name)) is not None for name in names):
            return names
    return None


def scored_pair(item: Item) -> list[OwnRow]:
    """`chosen` and `rejected` with a score each: their difference is the margin."""
    names = score_names(item.values) or ("score_chosen", "score_rejected")
    scores = [item.number(name) or 0.0 for name in names]
    row: OwnRow = {
        "chosen": item.content("chosen", "chosen_response"),
        "rejected": item.content("rejected", "rejected_response"),
    }
    if prompt := item.has("prompt", "instruction", "question", "input"):
        row["prompt"] = item.content(prompt)
    if item.has("prompt_id", "id"):
        row["id"] = item.label("prompt_id", "id")
    if item.peek("messages") == row["chosen"]:
        item.take("messages")
    margin = scores[0] - scores[1]
    item.log.count("pairs whose rejected response has the higher score: they have no margin", margin < 0)
    return [row | ({} if margin < 0 else {"margin": margin})]
