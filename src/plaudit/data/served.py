"""What was served and what people said of it, as lines of JSON: the feedback store, and what can be learned from it.

A line is one of these, each complete in itself, so that a file can be cut, joined and sent on:

- ``prompt``, ``response``, ``finish_reason``: a response that was served (`plaudit serve --log`);
- ``prompt``, ``response`` and one of ``thumb`` ("up", "down"), ``rating`` (a number) or ``edit`` (the better text);
- ``prompt``, ``responses`` and ``chosen`` (an index, or null for a tie): two responses that were read side by side.

``id`` is that of the response, ``index`` its place among several, ``user`` says who it was, ``model`` and
``provenance`` where the response comes from. Of what one user says of one response in one form, the last counts.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from plaudit.data.load import Loaded
from plaudit.errors import DataError, MachineError
from plaudit.records import (
    LARGEST,
    Comparison,
    Content,
    Demonstration,
    Kind,
    Message,
    Preference,
    Prompt,
    Rating,
    Record,
    content_from_json,
    to_json,
)

ServedWhat = Literal["preferences", "ratings", "kto", "demonstrations", "comparisons", "prompts"]
MOST = 9
"""Responses of one comparison."""
VERDICTS = ("thumb", "rating", "edit", "chosen")
THUMBS = {"up": "up", "down": "down", "1": "up", "0": "down", "true": "up", "false": "down"}
Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the store."""

    prompt: Content
    responses: tuple[Content, ...]
    """One, or those that were read side by side."""
    verdict: str = ""
    """thumb, rating, edit or chosen; empty: nobody has judged it."""
    value: Any = None
    """"up" or "down", a number, the better text, or the index of the chosen response (None: a tie)."""
    id: str = ""
    index: int = 0
    """Its place among the responses of one request."""
    user: str = ""
    models: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The line, without its time."""
        row: dict[str, Any] = {"id": self.id} if self.id else {}
        row |= {"index": self.index} if self.index else {}
        row |= {"user": self.user} if self.user else {}
        row["prompt"] = to_json(self.prompt)
        if self.verdict == "chosen":
            row |= {"responses": to_json(self.responses), "chosen": self.value, "models": list(self.models)}
        else:
            row |= {"response": to_json(self.responses[0]), "model": "".join(self.models)}
            row |= {self.verdict: self.value} if self.verdict else {}
        return row | ({"provenance": dict(self.provenance)} if self.provenance else {})


class Store:
    """Adds lines to a file; safe to use from several threads, and from several processes on a local disk.

    Args:
        path: JSON lines; made where there is none.
        redact: applied to every text before it is written: names, addresses, secrets.

    Raises:
        MachineError: the file cannot be written.
    """

    def __init__(self, path: str | Path, redact: Redact | None = None) -> None:
        self.path, self._redact = Path(path), redact
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._end_line()
        except OSError as error:
            raise self._refused(error) from error

    def add(self, said: Said, **more: Any) -> None:
        """Write a line; it is on the disk when this returns.

        Raises:
            MachineError: the disk refuses.
            DataError: the redaction failed; nothing was written.
        """
        row = {"time": round(time.time(), 3), **said.to_json(), **more}
        text = json.dumps(self._redacted(row), ensure_ascii=False)
        # One write of a whole line in append mode: lines of several writers do not mix.
        with self._lock:
            try:
                os.write(self._file, (text + "\n").encode("utf-8", "surrogatepass"))
                os.fsync(self._file)
            except OSError as error:
                raise self._refused(error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _end_line(self) -> None:
        """A line that a crash has cut off is ended, so that the next one is not lost with it."""
        if not os.fstat(self._file).st_size:
            return
        os.lseek(self._file, -1, os.SEEK_END)
        if os.read(self._file, 1) != b"\n":
            os.write(self._file, b"\n")

    def _redacted(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._redact is None:
            return row
        try:
            return {name: self._of(value) if name in TEXTS else value for name, value in row.items()}
        except Exception as error:  # code of the user: what cannot be redacted is not written
            what = f"the redaction failed with {type(error).__name__}: {error}"
            raise DataError(what, where="--redact", cure="mend the function; nothing was written") from error

    def _of(self, value: Any) -> Any:
        assert self._redact is not None, "checked by the caller"
        if isinstance(value, str):
            text = self._redact(value)
            if not isinstance(text, str):
                raise TypeError(f"it returned {type(text).__name__}, and not a text")
            return text
        if isinstance(value, list):
            return [self._of(one) for one in value]
        if isinstance(value, dict):
            return {key: one if key == "role" else self._of(one) for key, one in value.items()}
        return value

    def _refused(self, error: OSError) -> MachineError:
        cure = "check free space and permissions, or name another file"
        return MachineError(f"cannot write: {error.strerror}", where=str(self.path), cure=cure)


TEXTS = ("prompt", "response", "responses", "edit", "comment")
"""Fields of a line that a redaction sees."""


def verdict_of(row: Mapping[str, Any]) -> tuple[str, Any]:
    """Which verdict a line or a request gives, and its value in one spelling.

    Raises:
        ValueError: none or several, or a value that is none.
    """
    named = [name for name in VERDICTS if name in row]
    if len(named) != 1:
        raise ValueError(f"give one of {', '.join(VERDICTS)}, not {' and '.join(named) or 'none'}")
    name, value = named[0], row[named[0]]
    if name == "thumb":
        if str(value).lower() not in THUMBS:
            raise ValueError(f"thumb is {value!r}; give up or down")
        return name, THUMBS[str(value).lower()]
    if name == "rating":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
            raise ValueError(f"rating is {value!r}; give a number")
        return name, value
    if name == "edit" and not (isinstance(value, str) and value.strip()):
        raise ValueError("edit is empty; give the better text")
    if name == "chosen" and value is not None and not isinstance(value, int):
        raise ValueError(f"chosen is {value!r}; give an index, or null for a tie")
    return name, value


def read_served(files: Sequence[str | Path]) -> list[Said]:
    """The lines of files, without those that a later one of the same user, response and form replaces.

    Raises:
        DataError: a file that is missing, or a line of no known form, with file and line.
    """
    kept: dict[Any, Said] = {}
    for where, said in (line for name in files for line in _lines(name)):
        once = (said.id, said.index, said.user, said.verdict) if said.id else where
        kept.pop(once, None)
        kept[once] = said
    return list(kept.values())


def _lines(name: str | Path) -> Iterator[tuple[str, Said]]:
    if not Path(name).is_file():
        cure = "name what `plaudit serve` or `plaudit chat` wrote: --log, --feedback"
        raise DataError("there is no such file", where=str(name), cure=cure)
    with open(name, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{name}:{number}", _line(line, f"{name}:{number}")


def _line(line: str, where: str) -> Said:
    try:
        row = json.loads(line)
        prompt = content_from_json(row["prompt"])
        several = "responses" in row
        responses = tuple(content_from_json(one) for one in (row["responses"] if several else [row["response"]]))
        judged = any(name in row for name in VERDICTS)
        verdict, value = verdict_of(row) if judged else ("", None)
        if verdict == "chosen" and not (value is None or 0 <= value < len(responses)):
            raise ValueError(f"chosen is {value} of {len(responses)} responses")
        model = (row["model"],) if "model" in row else ()
        models = tuple(row["models"]) if several and "models" in row else model
        named, index = str(row.get("id", "")), int(row.get("index", 0))
        about = dict(row.get("provenance", {}))
        return Said(prompt, responses, verdict, value, named, index, str(row.get("user", "")), models, about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        what = f"no line of a feedback store: {' '.join(line.split())[:80]} ({reason})"
        cure = "remove the line, or write prompt, response and thumb, rating or edit"
        raise DataError(what, where=where, cure=cure) from error


def records_of(lines: Sequence[Said], what: ServedWhat) -> list[tuple[Record, dict[str, Any]]]:
    """What can be learned from the lines, each record with where it comes from.

    - kto: a thumb is a rating of 1 or 0.
    - ratings: the numbers that were given; thumbs are left out, for their scale is another.
    - demonstrations: edits; a thumb up says that a response is good, not that it is to be imitated.
    - preferences: an edit over what it was made of, the chosen response over the other; to one prompt, every response
      with a thumb up over every one with a thumb down.
    - comparisons: prompts with several different responses that nobody has compared: candidates for annotators.
    - prompts: each prompt once.
    """
    makers: dict[str, Callable[[Sequence[Said]], Iterable[tuple[Record, Said]]]] = {
        "kto": _kto, "ratings": _ratings, "demonstrations": _demonstrations, "preferences": _preferences,
        "prompts": _prompts,
    }  # fmt: skip
    if what == "comparisons":
        return [(record, {}) for record in _comparisons(lines)]
    return [(record, origin_of(said)) for record, said in makers[what](lines)]


def load_served(path: str, task: str | None = None) -> Loaded:
    """What the annotation app can ask about the lines of a file.

    Args:
        path: the file.
        task: what is asked. pairwise and ranking: candidate pairs, see `records_of`; rating and thumbs: each
            response; demonstration: each prompt; None: candidate pairs if there are any, else each response.

    Raises:
        DataError: no such file, a line of no known form, or nothing that can be asked.
    """
    lines = read_served([path])
    records: list[Record] = []
    if task in (None, "pairwise", "ranking"):
        records += _comparisons(lines)
    if task in ("rating", "thumbs") or (task is None and not records):
        records += _alone(lines)
    if task == "demonstration":
        records += [record for record, _ in _prompts(lines)]
    if not records:
        cure = "let prompts be answered twice, or ask another --task: rating, thumbs, demonstration"
        what = f"{len(lines)} lines, and no prompt with two different responses that nobody has compared"
        raise DataError(what, where=path, cure=cure)
    kind: Kind = "prompt" if task == "demonstration" else "comparison"
    return Loaded(tuple(records), kind, f"{len(lines)} lines of a feedback store", path, len(lines))


def _alone(lines: Sequence[Said]) -> Iterable[Comparison]:
    """Each response once."""
    seen: dict[tuple[Content, Content], Comparison] = {}
    for said in lines:
        models = said.models if len(said.models) == len(said.responses) else ("",) * len(said.responses)
        for response, model in zip(said.responses, models, strict=True):
            name = f"served-{_digest(said.prompt, response)}"
            one = Comparison(name, said.prompt, (response,), (model,), (origin_of(said),))
            seen.setdefault((said.prompt, response), one)
    return seen.values()


def origin_of(said: Said) -> dict[str, Any]:
    """Where a record comes from: the response's id, its model, how it was drawn, who judged it."""
    about: dict[str, Any] = {"source": "served", "id": said.id, "user": said.user, "verdict": said.verdict}
    about |= {"model": said.models[0]} if len(said.models) == 1 else {"models": list(said.models)}
    return {name: value for name, value in about.items() if value} | dict(said.provenance)


def _kto(lines: Sequence[Said]) -> Iterable[tuple[Record, Said]]:
    for said in lines:
        if said.verdict == "thumb":
            yield Rating(_name(said), said.prompt, said.responses[0], float(said.value == "up")), said


def _ratings(lines: Sequence[Said]) -> Iterable[tuple[Record, Said]]:
    for said in lines:
        if said.verdict == "rating":
            yield Rating(_name(said), said.prompt, said.responses[0], float(said.value)), said


def _demonstrations(lines: Sequence[Said]) -> Iterable[tuple[Record, Said]]:
    for said in lines:
        if said.verdict == "edit":
            yield Demonstration(_name(said), said.prompt, said.value), said


def _preferences(lines: Sequence[Said]) -> Iterable[tuple[Record, Said]]:
    for said in lines:
        if said.verdict == "edit":
            yield from _over(said, said.value, said.responses)
        elif said.verdict == "chosen" and said.value is not None:
            yield from _over(said, said.responses[said.value], said.responses)
    thumbs: dict[Content, dict[str, dict[Content, Said]]] = defaultdict(lambda: {"up": {}, "down": {}})
    for said in lines:
        if said.verdict == "thumb":
            thumbs[said.prompt][said.value].setdefault(said.responses[0], said)
    for both in thumbs.values():
        # A response that people disagree on says nothing.
        clear = (said for text, said in both["up"].items() if text not in both["down"])
        worse = [text for text in both["down"] if text not in both["up"]]
        for said in clear:
            yield from _over(said, said.responses[0], worse)


def _over(said: Said, chosen: Content, others: Iterable[Content]) -> Iterable[tuple[Record, Said]]:
    """The chosen response over each other one."""
    for other in others:
        if other != chosen:
            name = _name(said, chosen, other)
            yield Preference(name, said.prompt, chosen, other, annotator=said.user or None), said


def _prompts(lines: Sequence[Said]) -> Iterable[tuple[Record, Said]]:
    seen: dict[Content, Said] = {}
    for said in lines:
        seen.setdefault(said.prompt, said)
    for prompt, said in seen.items():
        yield Prompt(_digest(prompt), prompt), said


def _comparisons(lines: Sequence[Said]) -> Iterable[Comparison]:
    by_prompt: dict[Content, dict[Content, tuple[str, dict[str, Any]]]] = defaultdict(dict)
    judged = {
        (said.prompt, frozenset(pair))
        for said in lines
        if said.verdict == "chosen"
        for pair in combinations(said.responses, 2)
    }
    for said in lines:
        models = said.models if len(said.models) == len(said.responses) else ("",) * len(said.responses)
        for response, model in zip(said.responses, models, strict=True):
            by_prompt[said.prompt].setdefault(response, (model, origin_of(said)))
        if said.verdict == "edit":
            origin = origin_of(said) | {"edited": True}
            by_prompt[said.prompt].setdefault(said.value, (said.user, origin))
    for prompt, responses in by_prompt.items():
        texts = tuple(responses)[:MOST]
        if len(texts) > 1 and not (len(texts) == 2 and (prompt, frozenset(texts)) in judged):
            models, origins = zip(*(responses[text] for text in texts), strict=True)
            yield Comparison(f"served-{_digest(prompt)}", prompt, texts, tuple(models), tuple(origins))


def _name(said: Said, *texts: Content) -> str:
    """A name that stays the same when the file is read again."""
    own = f"{said.id}-{said.index}" if said.id else _digest(said.prompt, *said.responses)
    return "/".join(part for part in (own, said.user, _digest(*texts) if texts else "") if part)


def _digest(*parts: Content) -> str:
    def text(part: Content) -> str:
        return part if isinstance(part, str) else "\0".join(_turn(turn) for turn in part)

    joined = "\1".join(map(text, parts)).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=8).hexdigest()


def _turn(turn: Message) -> str:
    return f"{turn.role}\2{turn.text}"
