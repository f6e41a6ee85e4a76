"""One function per layout: the fields of a row become records. Faults are listed, never raised."""

from __future__ import annotations

import json
from typing import Any

from plaudit.data.reading.fields import Fields
from plaudit.data.reading.names import AXES
from plaudit.data.reading.oddities import is_blank
from plaudit.data.reading.rows import as_json, number_of, shorten, shorten_names
from plaudit.data.reading.transcripts import as_messages, is_transcript, plain_text, response_of, split_shared
from plaudit.records import (
    Comparison,
    Content,
    Demonstration,
    Judgement,
    Message,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Record,
)

_VERDICTS = {"a": -1, "model_a": -1, "response_a": -1, "b": 1, "model_b": 1, "response_b": 1, "tie": 0}
_CLASSES = {"positive": 1.0, "pos": 1.0, "true": 1.0, "negative": 0.0, "neg": 0.0, "false": 0.0}


# Prompts and demonstrations


def prompt(fields: Fields, record_id: str) -> list[Record]:
    """`prompt`, optionally `answer`; what else is in the row is kept as it is, for rewards and environments."""
    content = fields.prompt()
    answer, whole = _checkable(fields)
    fault = None if fields.faulty else fault_of_prompt(content)
    if fault:
        fields.fault("prompt", *fault)
    others = {name: v for name, v in fields.row.values.items() if name not in fields.used and v is not None} | whole
    if tools := fields.tools:  # rewards and environments may want to know them as well
        others[fields.columns["tools"][0]] = list(tools)
    # Parquet has types that JSON has not (dates, decimals), and columns may travel to a process or a server.
    return [Prompt(record_id, content, answer, json.loads(json.dumps(others, default=as_json)))]


def _checkable(fields: Fields) -> tuple[str | None, dict[str, str]]:
    """The answer that can be checked; where it stands behind a solution and "####", the whole text as a column too."""
    answer = fields.label("answer")
    solution, mark, last = (answer or "").rpartition("####")
    if not mark or not solution.strip() or not last.strip() or "\n" in last.strip():
        return answer, {}
    fields.log.count("answers of which what follows #### is checked; the column keeps the whole text")
    return last.strip(), {fields.columns["answer"][0]: answer or ""}


def fault_of_prompt(content: Content) -> tuple[str, str] | None:
    """What is wrong with a prompt to which a response is sampled, and the cure; None if nothing is."""
    if not _has_words(content):
        return "an empty prompt", "write a prompt, or remove the row"
    if isinstance(content, tuple) and content[-1].role == "assistant":
        return "a chat that ends with the assistant's turn", "end it with the user's turn"
    return None


def demonstration(fields: Fields, record_id: str) -> list[Record]:
    """`prompt` and `response`."""
    prompt, response = _in_one_style(fields.prompt(), fields.content("response"), fields)
    _no_empty_response(response, "response", fields)
    return [Demonstration(record_id, prompt, response)]


def chat(fields: Fields, record_id: str) -> list[Record]:
    """`messages` that end with the assistant's turn."""
    turns = fields.content("messages", transcript="whole")
    return _whole_chat(turns if isinstance(turns, str) else fields.framed(turns), "messages", fields, record_id)


def text(fields: Fields, record_id: str) -> list[Record]:
    """`text` alone: a transcript, or a text to be imitated from its first token on."""
    content = fields.content("text", transcript="whole")
    if isinstance(content, tuple):
        return _whole_chat(fields.framed(content), "text", fields, record_id)
    _no_empty_response(content, "text", fields)
    return [Demonstration(record_id, "", content)]


def _whole_chat(turns: Content, name: str, fields: Fields, record_id: str) -> list[Record]:
    if isinstance(turns, str) or not turns or turns[-1].role != "assistant":
        last = turns[-1] if turns else ""
        found = f"a chat that ends with role {last.role}" if isinstance(last, Message) else shorten(turns)
        cure = "expected messages that end with the assistant's turn"
        fields.fault(name, found, f"{cure}; for prompts: --kind prompt" if turns else cure)
        return []
    trained = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.train is not False]
    if not trained:
        fields.fault(name, "no turn that is trained on", "give one turn of the assistant the weight 1")
        return []
    if not any(turn.role == "user" for turn in turns):
        roles, advice = ", ".join(turn.role for turn in turns[:4]), "add what was asked"
        fields.log.odd("chats with no turn of the user", fields.row.where, name, roles, advice)
    # What follows the last turn that is trained on is context of nothing.
    fields.log.count("turns after the last one that is trained on, left out", len(turns) - 1 - trained[-1])
    turns = turns[: trained[-1] + 1]
    _no_empty_response(turns[-1:], f"{name}[{len(turns) - 1}].content", fields)
    return [Demonstration(record_id, turns[:-1], response_of(turns[-1:]))]


def _no_empty_response(response: Content, name: str, fields: Fields) -> None:
    if not _has_words(response) and not fields.faulty:
        fields.fault(name, "an empty response", "write a response, or remove the row")


# Preferences


def preference(fields: Fields, record_id: str) -> list[Record]:
    """`chosen` and `rejected`, with `prompt` or as whole texts that share it."""
    named = fields.asked() if fields.has("prompt") else ""
    # Without a prompt both texts hold it (HH-RLHF). Some data sets give the prompt and repeat it in both texts.
    texts = [fields.row.values.get(fields.columns.get(x, (x,))[0]) for x in ("chosen", "rejected")]
    whole = not named or all(is_transcript(str(text)) for text in texts)
    chosen = fields.content("chosen", transcript="whole" if whole else "never")
    rejected = fields.content("rejected", transcript="whole" if whole else "never")
    prompt: Content
    if not named or (_is_whole(chosen) and _is_whole(rejected)):
        prompt, chosen, rejected = split_shared(chosen, rejected)
        _report_shared(prompt, chosen, fields)
        _check_named(named, prompt, fields)
        prompt = fields.framed(prompt)
    else:
        prompt = fields.framed(named)
        _, rejected = _in_one_style(prompt, rejected, fields)
        prompt, chosen = _in_one_style(prompt, chosen, fields)
    chosen, rejected = _until_assistant(chosen, fields), _until_assistant(rejected, fields)
    fields.log.count("empty responses", (not _has_words(chosen)) + (not _has_words(rejected)))
    if chosen == rejected and not fields.faulty:
        found, advice = shorten(plain_text(chosen)), "nothing can be learned from them: remove them"
        fields.log.odd("pairs whose two responses are the same", fields.row.where, "rejected", found, advice)
    agreement = fields.number("agreement") if fields.has("agreement") else 1.0
    if not 0 <= agreement <= 1:
        fields.fault("agreement", shorten(agreement), "expected a share from 0 to 1")
    margin = _margin(fields)
    annotator, category = fields.label("annotator"), fields.category(prompt)
    return [Preference(record_id, prompt, chosen, rejected, margin, agreement, annotator, category)]


def _check_named(named: Content, shared: Content, fields: Fields) -> None:
    """A prompt that is given besides two whole texts must stand in both; else one of the two would be lost."""
    inside = " ".join(plain_text(shared).split())
    if any(" ".join(turn.content.split()) not in inside for turn in as_messages(named, "user")):
        found = f"{shorten(plain_text(named))}, which is not in the conversations that chosen and rejected share"
        fields.fault("prompt", found, "keep the prompt, or the whole conversations: --field prompt= leaves it out")
    if not named:
        # A text that was cut where the two begin to differ is no turn of a chat.
        fields.promptless = not shared or isinstance(shared, str)


def _margin(fields: Fields) -> float | None:
    margin = fields.number("margin") if fields.has("margin") else None
    if margin is not None and margin < 0:
        fields.fault("margin", shorten(margin), "expected 0 or more: swap chosen and rejected")
    return margin


def _is_whole(content: Content) -> bool:
    """Whether a response contains its prompt."""
    return isinstance(content, tuple) and len(content) > 1 and content[0].role in ("user", "system")


def _report_shared(prompt: Content, chosen: Content, fields: Fields) -> None:
    if not isinstance(chosen, str) and len(chosen) > 1:
        fields.log.count("pairs that differ in an earlier turn: what follows it counts as the response")
    if not prompt and not fields.faulty:
        fields.log.count("pairs that share no prompt: the whole texts count as responses")


def _until_assistant(content: Content, fields: Fields) -> Content:
    """A response without the turns after the assistant's last one."""
    if isinstance(content, str):
        return content
    last = max((i for i, turn in enumerate(content) if turn.role == "assistant"), default=-1)
    if last < 0:
        fields.fault("chosen or rejected", "no turn of the assistant", "give the response as the last turn")
    elif last < len(content) - 1:
        fields.log.count("responses followed by more turns, which are left out")
    _refuse_context(content, fields)
    return response_of(content[: last + 1])


def _in_one_style(prompt: Content, response: Content, fields: Fields) -> tuple[Content, Content]:
    """Prompt and response in one style: a response written as messages makes the prompt a chat."""
    # A transcript ends with "Assistant:", and the space behind the colon belongs to the format, not to the response.
    if isinstance(response, str):
        return prompt, response.removeprefix(" ") if fields.from_transcript else response
    # The response may repeat the prompt, and the system text may have a column of its own.
    for start in (as_messages(prompt, "user"), tuple(m for m in as_messages(prompt, "user") if m.role != "system")):
        if prompt and start and response[: len(start)] == start:
            response = response[len(start) :]
            break
    if not any(turn.role == "assistant" for turn in response) and not fields.faulty:
        roles = ", ".join(dict.fromkeys(turn.role for turn in response)) or "none"
        fields.fault("response", f"a chat without a turn of the assistant (roles: {roles})", "end it with one")
    _refuse_context(response, fields)
    return as_messages(prompt, "user") if prompt else (), response_of(response)


def _refuse_context(response: tuple[Message, ...], fields: Fields) -> None:
    """A response that is marked as context only has nothing to learn from."""
    marks = [turn.train is not False for turn in response if turn.role == "assistant"]
    if marks and not any(marks):
        fields.fault("weight", "a response with weight 0", "give it weight 1, or remove the row")


# Judgements, rankings, ratings


def judgements(fields: Fields, record_id: str) -> list[Record]:
    """`response_a`, `response_b` and one verdict (`label` or `strength`), or `labels` by annotator."""
    prompt = fields.prompt()
    _, first = _in_one_style(prompt, fields.content("response_a"), fields)
    prompt, second = _in_one_style(prompt, fields.content("response_b"), fields)
    fields.log.count("empty responses", (not _has_words(first)) + (not _has_words(second)))
    models = fields.label("model_a") or "", fields.label("model_b") or ""
    category = fields.category(prompt)
    if not fields.has("labels"):
        annotator = fields.label("annotator") or ""
        margin = _margin(fields)
        return [Judgement(record_id, prompt, first, second, _verdict_of(fields), *models, annotator, margin, category)]
    labels = fields.named("labels")
    verdicts = {name: _verdict(label, f"labels.{name}", fields) for name, label in labels.items()}
    if not verdicts:
        fields.fault("labels", "no label", "expected an object with one label per annotator")
    return [
        Judgement(f"{record_id}/{name}", prompt, first, second, verdict, *models, name, None, category)
        for name, verdict in verdicts.items()
    ]


def _verdict_of(fields: Fields) -> int:
    strength = _verdict(fields.value("strength"), "strength", fields) if fields.has("strength") else None
    label = _verdict(fields.value("verdict"), "verdict", fields) if fields.has("verdict") else None
    if strength is not None and label is not None and _side(strength) != _side(label):
        fields.fault("verdict", f"a label that contradicts strength {strength}", "keep one of the two")
    if strength is None and label is None:
        fields.value("verdict", "strength")
    return strength if strength is not None else label or 0


def _side(strength: int) -> int:
    return (strength > 0) - (strength < 0)


def _verdict(value: Any, name: str, fields: Fields) -> int:
    """-2 (a much better) to 2 (b much better), from a number or from a word."""
    if isinstance(value, str) and value.strip().lower() in _VERDICTS:
        return _VERDICTS[value.strip().lower()]
    in_cell = fields.row.cells and isinstance(value, str) and value.strip().lstrip("+-").isdigit()
    if in_cell or number_of(value) is not None:
        strength = fields.whole(value, name)
        if -2 <= strength <= 2:
            return strength
    fields.fault(name, shorten(value), "expected a, b or tie, or a strength from -2 (a much better) to 2")
    return 0


def ranking(fields: Fields, record_id: str) -> list[Record]:
    """`responses` and their `ranks`."""
    prompt = fields.prompt()
    contents = [fields.as_content(v, f"responses[{i}]") for i, v in enumerate(fields.items("responses"))]
    pairs = [_in_one_style(prompt, response, fields) for response in contents]
    ranks = [fields.whole(v, f"ranks[{i}]") for i, v in enumerate(fields.items("ranks"))]
    if not 2 <= len(contents) <= 9:
        fields.fault("responses", f"{len(contents)} responses", "expected 2 to 9")
    elif len(ranks) != len(contents):
        fields.fault("ranks", f"{len(ranks)} ranks for {len(contents)} responses", "expected one for each")
    elif min(ranks) == 0:  # many programs count ranks from 0: unambiguous, so no fault
        fields.log.count("rankings whose ranks count from 0, read as 1 = best")
        ranks = [rank + 1 for rank in ranks]
    elif min(ranks) != 1:
        fields.fault("ranks", f"a best rank of {min(ranks)}", "expected ranks from 1 (best)")
    if len(set(ranks)) == 1 and not fields.faulty:
        found, advice = f"{len(ranks)} times the rank {ranks[0]}", "nothing can be learned from them: remove them"
        fields.log.odd("rankings whose responses all have the same rank", fields.row.where, "ranks", found, advice)
    fields.log.count("empty responses", sum(not _has_words(response) for response in contents))
    responses = tuple(response for _, response in pairs)
    prompt = pairs[0][0] if pairs else prompt
    return [Ranking(record_id, prompt, responses, tuple(ranks), fields.category(prompt))]


def comparison(fields: Fields, record_id: str) -> list[Record]:
    """`responses`, or `response_a` and `response_b`, without a verdict; optionally who wrote each, and how."""
    prompt = fields.prompt()
    listed = bool(fields.has("responses"))
    contents = (
        [fields.as_content(v, f"responses[{i}]") for i, v in enumerate(fields.items("responses"))]
        if listed
        else [fields.content(f"response_{x}") for x in "ab"]
    )
    pairs = [_in_one_style(prompt, response, fields) for response in contents]
    if not 1 <= len(contents) <= 9:
        fields.fault("responses", f"{len(contents)} responses", "expected 1 to 9")
    models = fields.items("models") if listed and fields.has("models") else []
    if not listed and fields.has("model_a", "model_b"):
        models = [fields.label(f"model_{x}") or "" for x in "ab"]
    origins = fields.items("provenance") if fields.has("provenance") else []
    _one_for_each("models", models, str, contents, fields)
    _one_for_each("provenance", origins, dict, contents, fields)
    fields.log.count("empty responses", sum(not _has_words(response) for response in contents))
    responses = tuple(response for _, response in pairs)
    prompt = pairs[0][0] if pairs else prompt
    return [Comparison(record_id, prompt, responses, tuple(models), tuple(origins))]


def _one_for_each(name: str, values: list[Any], kind: type, contents: list[Content], fields: Fields) -> None:
    if values and len(values) != len(contents):
        fields.fault(name, f"{len(values)} for {len(contents)} responses", "expected one for each")
    bad = next((value for value in values if not isinstance(value, kind)), None)
    if bad is not None:
        fields.fault(name, shorten(bad), "expected text" if kind is str else "expected objects")


def rating(fields: Fields, record_id: str) -> list[Record]:
    """A number for one response: `reward`, `rating` or `score`, a `label`, or named axes."""
    prompt = fields.prompt() if fields.has("prompt") else ""
    response = fields.content("response", "sentence")
    fields.promptless = not prompt and bool(fields.has("response"))
    prompt, response = _in_one_style(prompt, response, fields)
    fields.log.count("empty responses", not _has_words(response))
    axes = _axes(fields)
    if fields.has("reward"):
        reward = fields.number("reward")
    elif axes:
        source = "the axis overall" if "overall" in axes else "the mean of the axes"
        fields.log.count(f"ratings without a reward of their own: it is {source}")
        reward = axes.get("overall", sum(axes.values()) / len(axes))
    else:
        reward = _class(fields)
    return [Rating(record_id, prompt, response, reward, axes, fields.category(prompt))]


def _axes(fields: Fields) -> dict[str, float]:
    if fields.has("axes"):
        return {name: fields.as_number(v, f"axes.{name}") for name, v in fields.named("axes").items()}
    return {name: fields.number(name) for name in AXES if fields.has(name)}


def _class(fields: Fields) -> float:
    value = fields.value("label")
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in _CLASSES:
        return _CLASSES[value.strip().lower()]
    if isinstance(value, str) and not fields.row.cells:
        fields.fault("label", shorten(value), f"expected a number or {shorten_names(_CLASSES)}")
        return 0.0
    return fields.as_number(value, "label")


def _has_words(content: Content) -> bool:
    """Whether a text is more than spaces, or the last turn of a chat says, thinks or calls something."""
    if isinstance(content, str):
        return not is_blank(content)
    last = content[-1] if content else Message("assistant", "")
    return bool(not is_blank(last.content) or last.tool_calls or last.reasoning_content)
