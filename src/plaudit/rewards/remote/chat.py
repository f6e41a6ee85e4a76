"""An endpoint of chat completions that is asked as a judge: requests, costs, the limit, and a check before the run."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from plaudit.config.fields import nearest
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.rewards.remote.answers import Answers, Reply
from plaudit.rewards.remote.questions import RUBRIC, Malformed, Question
from plaudit.rewards.remote.transport import NoAnswer, Transport, not_json
from plaudit.rewards.result import shortened

MOST_TOKENS = 1024
"""Tokens of a reply, unless the options say otherwise: a short reason and a few numbers, with room for some thought."""
LONGEST_RUBRIC = 100_000
"""Characters."""
MILLION = 1_000_000
MOST_SILENT = 4
"""Questions in a row without any answer, after which the others of a batch are not asked: each would wait in vain."""
BYTES_OF_A_TOKEN = 3
"""A cautious guess, for endpoints that do not count tokens: English has about four."""
OK = 200
NOT_TAKEN = (400, 404, 415, 422, 501)
"""What endpoints answer to a ``response_format`` that they do not know."""
Chat = list[dict[str, Any]]
"""Messages with role and content, as the endpoint takes them."""
PROBE = ("Which is larger, 7 or 4?", ("7 is larger than 4.", "Larger things are better."))
"""What a judge is asked before a run, to see that it answers, and how."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers of a reply, or the reason why there are none."""

    numbers: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A response that a model wrote, or the reason why there is none."""

    text: str = ""
    error: str = ""
    finish: str = ""
    """Why it ended, in the endpoint's word."""


class Judge:
    """Asks one model at an endpoint.

    Several threads may ask at the same time. What was asked before, by this run or another with the same file of
    answers, is not asked again; nor is anything once the cost limit is reached (at most the questions that are under
    way then, ``concurrency`` of them, are still paid for).

    Args:
        table: endpoint, model, prices and limits.
        where: the config key, for errors.
        environment: where the key is looked up.
        sleep: waits so many seconds; a test gives its own.

    Raises:
        ConfigError: no key in the environment, no such rubric, or no file of answers.
    """

    def __init__(
        self,
        table: JudgeTable,
        *,
        where: str = "reward",
        # Read here and not by the command line: what passes through the config stands in the run's files.
        environment: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.table, self.where = table, where
        self._key = _key(table, where, environment)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._transport = Transport(table.timeout, headers, sleep=sleep)
        self._base = table.url.rstrip("/").removesuffix("/chat/completions")
        self._formats: tuple[str, ...] = ("json_schema", "json_object", "")
        self._full, self._silent = "", 0
        self.rubric = _rubric(table, where)
        self.answers = Answers(table.cache, where)

    def check(self) -> None:
        """See that the endpoint is there, takes the key, has the model, and that the model answers as it is asked to.

        Raises:
            ConfigError: it does not.
        """
        models = self.models()
        prompt, responses = PROBE
        shown = responses[:1] if self.table.ask == "score" else responses
        verdict = self.ask(Question(self.table.ask, prompt, shown, rubric=self.rubric))
        if not verdict.error:
            self._warn_of_an_alias(models)
            return
        what = f"the judge {self.table.model} at {self._base} {verdict.error}"
        cure = "try the endpoint by hand, or name another model"
        if self._over_the_limit():
            cure = "raise cost_limit, or name another file of answers with cache"
        elif models and self.table.model not in models:
            close = nearest(self.table.model, models)
            listed = ", ".join(models[:10]) + (" ..." if len(models) > 10 else "")
            cure = (f"did you mean {close}? " if close else "") + f"The endpoint has {listed}"
        raise ConfigError(what, where=self.where, cure=cure)

    def _warn_of_an_alias(self, models: Sequence[str]) -> None:
        """Some servers take any name for the one model that they have; answers are kept by that name."""
        name = self.table.model
        if models and not {name, f"{name}:latest"} & {*models}:
            warnings.warn(
                f"{self._base} does not list a model {name} (it has {', '.join(models[:3])}), but answers to the name; "
                f"{self.table.cache} keeps its answers under that name, so give another model another one",
                stacklevel=2,
            )

    def ask_all(self, questions: Iterable[Question]) -> dict[str, Verdict]:
        """The verdicts on many questions, each asked once, by `Question.digest`."""
        self.answers.refresh()
        self._silent = 0
        unique = {question.digest: question for question in questions}
        if not unique:
            return {}
        # Threads, because each does nothing but wait for the endpoint.
        with ThreadPoolExecutor(min(self.table.concurrency, len(unique))) as pool:
            return dict(zip(unique, pool.map(self.ask, unique.values()), strict=True))

    def ask(self, question: Question) -> Verdict:
        """The verdict on one question."""
        reply, error = self._once(question.digest, lambda: self._reply(question))
        if reply is None:
            return Verdict(error=error)
        try:
            return Verdict(question.read(reply.text))
        except Malformed as malformed:
            more = "; it was cut off, so raise max_tokens in options" if reply.finish == "length" else ""
            return Verdict(error=self._hidden(f"answered {shortened(reply.text)}: {malformed}{more}"))

    def write_all(self, chats: Sequence[Chat], draws: Sequence[str], options: Mapping[str, Any]) -> list[Written]:
        """Responses of the model to chats, those to one chat one after the other; each is asked for once.

        Args:
            chats: messages as the endpoint takes them.
            draws: names of the responses to a chat: under another name another one is asked for.
            options: of the request, such as the temperature; those of the table win.
        """
        self.answers.refresh()
        self._silent = 0
        asked = [(chat, draw) for chat in chats for draw in draws]
        with ThreadPoolExecutor(max(1, min(self.table.concurrency, len(asked)))) as pool:
            return list(pool.map(lambda one: self._write(one[0], one[1], options), asked))

    def _write(self, chat: Chat, draw: str, options: Mapping[str, Any]) -> Written:
        content = json.dumps(["write", chat, draw, options], sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()
        body = {**options, **self.table.options, "model": self.table.model, "messages": chat}
        if "max_completion_tokens" in self.table.options:
            body.pop("max_tokens", None)
        reply, error = self._once(digest, lambda: self._read(self._send(body), body))
        if reply is not None and not reply.text:
            return Written(error="answered without a text")
        return Written(reply.text, error, reply.finish) if reply is not None else Written(error=error)

    def _once(self, digest: str, ask: Callable[[], Reply]) -> tuple[Reply | None, str]:
        """The reply to what has this digest: the one that is kept, or what ``ask`` gives; or why there is none."""
        table = self.table
        content = json.dumps([table.model, table.options, digest], sort_keys=True, default=str)
        key = hashlib.sha256(content.encode()).hexdigest()
        reply = self.answers.get(key)
        if reply is not None:
            return reply, ""
        if stopped := self._full or self._over_the_limit():
            return None, f"is not asked any more: {stopped}"
        if self._silent >= max(MOST_SILENT, table.concurrency):
            return None, f"is not asked: {self._base} gave no answer to {self._silent} questions before"
        try:
            reply = ask()
            self._silent = 0
            self.answers.add(key, table.model, reply)
        except NoAnswer as failed:
            self._silent += not failed.status
            return None, self._hidden(f"{failed}{_detail(failed)}")
        except OSError as error:
            # What cannot be written down would be paid for again, and would not count for the limit.
            self._full = f"{table.cache} cannot be written ({error.strerror or error})"
            return None, f"answered, but {self._full}"
        return reply, ""

    def _over_the_limit(self) -> str:
        """That the limit is reached, in words; empty if it is not."""
        spent, limit = self.answers.spent.cost, self.table.cost_limit
        if not limit or spent < limit:
            return ""
        return f"the answers in {self.table.cache} have cost {spent:.4g}, and cost_limit is {limit:g}"

    def _reply(self, question: Question) -> Reply:
        """Ask the endpoint, in the strictest form that it takes.

        Raises:
            NoAnswer: it did not answer, or not as chat completions do.
        """
        body = {"temperature": 0, "max_tokens": MOST_TOKENS, **self.table.options}
        if "max_completion_tokens" in self.table.options:
            del body["max_tokens"]
        body |= {"model": self.table.model, "messages": question.messages()}
        formats = self._formats
        for i, kind in enumerate(formats):
            try:
                answer = self._send(body | _format(kind, question.schema()))
            except NoAnswer as failed:
                if failed.status not in NOT_TAKEN or i + 1 == len(formats):
                    raise
                continue
            # Remembered only now: what an endpoint refuses in all forms says nothing about the form.
            self._formats = formats[i:]
            return self._read(answer, body)
        raise AssertionError("the last form returns or raises")

    def _send(self, body: Mapping[str, Any]) -> Any:
        data = json.dumps(body, default=str).encode()
        try:
            return json.loads(self._transport.send(f"{self._base}/chat/completions", data))
        except (ValueError, RecursionError) as error:
            raise NoAnswer(not_json(error), status=OK) from None

    def _read(self, answer: Any, body: Mapping[str, Any]) -> Reply:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
        except (LookupError, TypeError):
            raise NoAnswer(f"answered {shortened(answer)}, which is no chat completion", status=OK) from None
        # Without a text (a refusal, or a call of a tool) it was answered and paid for all the same.
        text = text if isinstance(text, str) else ""
        usage = answer.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        tokens_in = _count(usage.get("prompt_tokens"), json.dumps(body["messages"], ensure_ascii=False))
        tokens_out = _count(usage.get("completion_tokens"), text)
        per_in, per_out = self.table.prices
        cost = (tokens_in * per_in + tokens_out * per_out) / MILLION
        return Reply(text, str(choice.get("finish_reason") or ""), tokens_in, tokens_out, cost)

    def models(self) -> list[str]:
        """The models that the endpoint lists; empty where it has no list.

        Raises:
            ConfigError: the endpoint is not there, or does not take the key.
        """
        try:
            answer = json.loads(self._transport.send(f"{self._base}/models"))
        except NoAnswer as failed:
            if failed.status in (401, 403):
                named = f"the key in {self.table.key_env}" if self._key else "a request without a key"
                raise ConfigError(
                    f"the endpoint {self._base} refuses {named} ({self._hidden(failed.reason)})",
                    where=self.where,
                    cure="set key_env = NAME in the table of the judge, and the key in that environment variable",
                ) from None
            if failed.status:
                return []  # an endpoint without this list; the question that follows says more
            raise ConfigError(
                f"the endpoint of the judge, {self._base}, {self._hidden(str(failed))}",
                where=self.where,
                cure="start the server, and give its address up to the version: url = http://HOST:PORT/v1",
            ) from None
        except (ValueError, RecursionError):
            return []
        listed = answer.get("data") if isinstance(answer, Mapping) else None
        rows = listed if isinstance(listed, list) else []
        return [row["id"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str)]

    def _hidden(self, text: str) -> str:
        """A text without the key: servers repeat it in what they say about it."""
        return text.replace(self._key, "[key]") if self._key else text


def notes_on(table: JudgeTable) -> list[str]:
    """What somebody who names such a judge should know, in words for the user."""
    notes = []
    address = urlsplit(table.url)
    if table.key_env and address.scheme.lower() == "http" and not _is_this_machine(address.hostname or ""):
        notes.append(f"the key in {table.key_env} is sent to {table.url} in the clear: use https://")
    if table.ask != "score" and not table.against:
        notes.append(
            "a judge that compares the responses to a prompt with each other gives each policy a mean of 0.5, so its"
            " curve and its held-out mean show no progress: watch a gold reward, or name a column with against"
        )
    return notes


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(table: JudgeTable, where: str, environment: Mapping[str, str]) -> str:
    if not table.key_env:
        return ""
    key = environment.get(table.key_env, "").strip()
    # A character that a header cannot hold would end up in the error of whoever writes the header, with the whole key.
    if key and key.isascii() and key.isprintable() and " " not in key:
        return key
    what = "holds no key that can be sent" if key else "is not set"
    raise ConfigError(
        f"the environment variable {table.key_env}, for the key of the judge, {what}",
        where=where,
        cure=f"set it where the run is started, export {table.key_env}=..., or leave key_env out if no key is needed",
    )


def _rubric(table: JudgeTable, where: str) -> str:
    if not table.rubric:
        return RUBRIC
    cure = "name a text file in UTF-8 that says what makes a response good"
    try:
        text = Path(os.path.expanduser(table.rubric)).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the rubric {table.rubric} cannot be read: {error}", where=where, cure=cure) from None
    if not text or len(text) > LONGEST_RUBRIC:
        raise ConfigError(f"the rubric {table.rubric} has {len(text)} characters", where=where, cure=cure)
    return text


def _format(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    if kind == "json_schema":
        named = {"name": "verdict", "strict": True, "schema": schema}
        return {"response_format": {"type": kind, "json_schema": named}}
    return {"response_format": {"type": kind}} if kind else {}


def _count(reported: Any, text: str) -> int:
    """Tokens as the endpoint counts them; where it does not, rather too many than too few."""
    if isinstance(reported, int) and not isinstance(reported, bool) and reported >= 0:
        return reported
    return -(-len(text.encode(errors="replace")) // BYTES_OF_A_TOKEN)


def _detail(failed: NoAnswer) -> str:
    """What the endpoint said about a request that it refused."""
    try:
        said = json.loads(failed.detail)
        said = said.get("error", said)
        message = said.get("message") if isinstance(said, Mapping) else said
    except (ValueError, AttributeError, RecursionError):
        message = failed.detail.strip()
    return f": {shortened(message, 200)}" if isinstance(message, str) and message else ""

