"""The routes: chats, completions, models, scores, feedback, metrics; and errors as clients of OpenAI read them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from plaudit import __version__
from plaudit.data.served import Said
from plaudit.errors import ConfigError, DataError, PlauditError
from plaudit.live import Busy, Engine, Piece, TimedOut
from plaudit.live import Request as Wanted
from plaudit.records import Content
from plaudit.serving.answers import DONE, Choice, Form, event, usage_of
from plaudit.serving.bodies import Bad, ChatBody, CompletionBody, Drawn, FeedbackBody, ScoreBody, first_fault
from plaudit.serving.gate import Gate, error_body
from plaudit.serving.host import Drawing, Host

LOG = logging.getLogger("plaudit.serving")
STATUS: tuple[tuple[type[PlauditError], int], ...] = (
    (Busy, 429), (TimedOut, 504), (DataError, 400), (ConfigError, 400),
)  # fmt: skip
router = APIRouter()


def create_app(host: Host) -> FastAPI:
    """The app that answers by what the host has."""
    app = FastAPI(title="Plaudit serving", version=__version__, docs_url=None, redoc_url=None)
    app.state.host = host
    app.include_router(router)
    for kind in (PlauditError, HTTPException, RequestValidationError, ValidationError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_middleware(Gate, settings=host.settings, metrics=host.metrics)
    return app


@dataclass
class _Job:
    """A request that is drawn: its prompts, and how its responses are written."""

    host: Host
    body: Drawn
    form: Form
    contents: Sequence[Content]
    prompts: Sequence[tuple[int, ...]]
    seed: int
    arrived: float

    @property
    def choices(self) -> list[Choice]:
        """One for each response, empty."""
        n = self.body.choices
        return [Choice(i * n + k, len(ids)) for i, ids in enumerate(self.prompts) for k in range(n)]

    def requests(self, engine: Engine) -> list[Wanted]:
        """What the engine is asked for."""
        body, default = self.body, self.host.settings.max_tokens
        made = []
        for ids in self.prompts:
            sampling = body.sampling(body.most_tokens(len(ids), default, engine.context))
            for k in range(body.choices):
                tops = body.alternatives or 0
                limit = self.host.settings.timeout
                made.append(Wanted(ids, sampling, self.seed, k, body.is_greedy, tops, limit))
        return made

    async def pieces(self, drawing: Drawing) -> AsyncIterator[tuple[int, Piece]]:
        """As of the drawing; the first token is timed."""
        first = True
        async for number, piece in drawing.pieces():
            if first:
                self.host.metrics.took("time_to_first_token_seconds", time.monotonic() - self.arrived)
                first = False
            yield number, piece

    async def ended(self, choice: Choice) -> None:
        """Note a response that is complete."""
        place = choice.index // self.body.choices
        sampling = self.body.sampling(1).model_dump(mode="json", exclude={"max_new_tokens"})
        about = {"sampling": sampling, "seed": self.seed, "draw": choice.index % self.body.choices}
        about |= {"greedy": True} if self.body.is_greedy else {}
        models = (self.host.settings.model,)
        said = Said(
            self.contents[place], (choice.text,), id=self.form.id, index=choice.index, models=models, provenance=about
        )
        await self.host.served(said, choice.finish or "")


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """A conversation goes on."""
    host: Host = request.app.state.host
    host.model(body.model)
    content = body.content
    return await _drawn(host, body, request, [content], [await host.prompt_ids(content)])


@router.post("/v1/completions", response_model=None)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Texts, or tokens, go on."""
    host: Host = request.app.state.host
    engine, chat = host.model(body.model)
    contents: list[Content] = []
    ids: list[tuple[int, ...]] = []
    for prompt in body.prompts:
        if isinstance(prompt, str):
            contents.append(prompt)
            ids.append(await host.prompt_ids(prompt))
            continue
        if any(not 0 <= token < engine.vocabulary for token in prompt):
            what = f"a token that the model does not have; it has {engine.vocabulary}"
            raise Bad(what, "prompt", "give ids from 0 to below that")
        contents.append(str(chat.tokenizer.decode(prompt)))
        ids.append(tuple(prompt))
    return await _drawn(host, body, request, contents, ids)


async def _drawn(
    host: Host, body: Drawn, request: Request, contents: Sequence[Content], prompts: Sequence[tuple[int, ...]]
) -> Response:
    """The responses to prompts, whole or as a stream."""
    arrived = time.monotonic()
    engine, _ = host.model(body.model)
    seed = secrets.randbits(53) if body.seed is None else body.seed
    form = Form(isinstance(body, ChatBody), host.settings.model, engine.token_text, body.alternatives)
    job = _Job(host, body, form, contents, prompts, seed, arrived)
    drawing = Drawing(engine, job.requests(engine))
    pieces = job.pieces(drawing)
    if body.stream:
        # The first token decides the status: what goes wrong before it is an error as of any other request.
        try:
            first = await anext(pieces)
        except BaseException:
            drawing.cancel()
            raise
        return StreamingResponse(_stream(job, drawing, first, pieces), media_type="text/event-stream")
    choices = job.choices
    gone = asyncio.create_task(_gone(request))
    whole = asyncio.create_task(_collect(pieces, choices, keep=body.alternatives is not None))
    try:
        await asyncio.wait({gone, whole}, return_when=asyncio.FIRST_COMPLETED)
        if not whole.done():
            return Response(status_code=499)
        whole.result()
    finally:
        drawing.cancel()
        for task in (gone, whole):
            task.cancel()
    for choice in choices:
        await job.ended(choice)
    return JSONResponse(form.whole(choices, usage_of(choices, sum(map(len, prompts)))))


async def _collect(pieces: AsyncIterator[tuple[int, Piece]], choices: list[Choice], *, keep: bool) -> None:
    async for number, piece in pieces:
        choices[number].add(piece, keep=keep)


async def _gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(
    job: _Job, drawing: Drawing, first: tuple[int, Piece], pieces: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[bytes]:
    """The events of a stream. A client that leaves ends it, and with it the drawing."""
    choices = job.choices
    for choice in choices:
        for chunk in job.form.opening(choice.index):
            yield chunk
    try:
        async for number, piece in _after(first, pieces):
            choice = choices[number]
            before = len(choice.text)
            choice.add(piece, keep=False)
            if piece.finish:
                await job.ended(choice)
            for chunk in job.form.piece(choice, piece, before):
                yield chunk
    except PlauditError as error:
        yield event(error_body(error, _status(error)))
        return
    finally:
        drawing.cancel()
    if job.body.wants_usage:
        yield job.form.usage(usage_of(choices, sum(map(len, job.prompts))))
    yield DONE


async def _after(
    first: tuple[int, Piece], pieces: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[tuple[int, Piece]]:
    yield first
    async for each in pieces:
        yield each


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served."""
    host: Host = request.app.state.host
    names = [(host.settings.model, "policy"), (host.settings.reward, "reward_model")]
    about = {"object": "model", "created": 0, "owned_by": "plaudit"}
    rows = [{"id": name, **about, "kind": kind} for name, kind in names if name]
    return {"object": "list", "data": rows}


@router.post("/v1/score")
async def score(body: ScoreBody, request: Request) -> dict[str, Any]:
    """What the reward model says of responses; answers rewards of kind http."""
    host: Host = request.app.state.host
    if body.model not in (None, host.settings.reward):
        raise Bad(f"there is no reward model {body.model!r}", "model", f"name {host.settings.reward}", status=404)
    rewards = await host.score(*body.rows())
    return {"object": "list", "model": host.settings.reward, "rewards": rewards}


@router.post("/v1/feedback")
async def feedback(body: FeedbackBody, request: Request) -> dict[str, Any]:
    """A thumb, a rating or an edit of a response that was served."""
    host: Host = request.app.state.host
    return await host.judge(body)


@router.get("/metrics")
async def metrics(request: Request) -> PlainTextResponse:
    """Figures for Prometheus."""
    host: Host = request.app.state.host
    text = host.metrics.text(host.engine.load() if host.engine else None)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health")
async def health() -> dict[str, str]:
    """The server is up."""
    return {"status": "ok"}


def _status(error: PlauditError) -> int:
    if isinstance(error, Bad):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


async def _failed(request: Request, error: Exception) -> Response:
    """Any failure as JSON, without what only the people of the server should see."""
    if isinstance(error, (RequestValidationError, ValidationError)):
        error = first_fault(error)
    if isinstance(error, PlauditError):
        status = _status(error)
        headers = {"Retry-After": "1"} if status == 429 else {}
        return JSONResponse(error_body(error, status), status, headers)
    if isinstance(error, HTTPException):
        plain = {404: "there is no such endpoint", 405: "this endpoint is not asked like that"}
        what = plain.get(error.status_code, str(error.detail))
        return JSONResponse(error_body(Bad(what), error.status_code), error.status_code)
    number = uuid.uuid4().hex[:8]
    LOG.error("failure %s: %s", number, "".join(traceback.format_exception(error)))
    what = f"something went wrong on the server (number {number})"
    return JSONResponse(error_body(PlauditError(what, cure="its log has more under this number"), 500), 500)
