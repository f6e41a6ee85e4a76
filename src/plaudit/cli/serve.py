"""`plaudit serve`: a model, a reward model, or both, behind an HTTP API."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plaudit.cli.parser import Parser
from plaudit.errors import ConfigError, DataError

ABOUT = """Serve a model behind the endpoints that clients of OpenAI know: /v1/chat/completions, /v1/completions,
/v1/models; /v1/score for a reward model, /v1/feedback for thumbs, ratings and edits, /metrics for Prometheus.

  plaudit serve runs/ppo                                    this machine only, no key
  plaudit serve runs/ppo --reward runs/reward --feedback feedback.jsonl
  plaudit serve runs/ppo --host 0.0.0.0 --api-keys keys.txt"""
INSTALL = "pip install 'plaudit[serve]'"
KEYS = "PLAUDIT_API_KEYS"


def run(command: str, argv: list[str]) -> int:
    """Load what is served, and serve it until it is stopped."""
    given = _parser().parse_args(argv)
    _check(given)
    try:
        from plaudit.serving.host import Host
        from plaudit.serving.serve import serve
        from plaudit.serving.settings import ServingSettings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("plaudit"):
            raise
        what = f"serving needs the package {error.name}"
        raise ConfigError(what, where="plaudit serve", cure=INSTALL) from error
    settings = ServingSettings(
        given.name or given.model, given.reward, given.host, given.port, _keys(given.api_keys), given.max_tokens,
        given.timeout,
    )  # fmt: skip
    from plaudit import backends
    from plaudit.data.served import Store

    redact = _redaction(given.redact)
    # Stores before models: a directory that cannot be written is found out in no time.
    log = Store(given.log, redact) if given.log else None
    feedback = Store(given.feedback, redact) if given.feedback else None
    host = Host(settings, log=log, feedback=feedback)
    if given.reward:
        inside = Path(given.reward) / "model"
        host.scorer, _ = backends.open_text_scorer(str(inside if inside.is_dir() else given.reward))
    if given.model:
        host.engine, host.chat = backends.open_engine(
            given.model, rows=given.rows, context=given.context, queue=given.queue
        )
        for note in host.engine.notes:
            _say(f"note: {note}")
    serve(host, _say)
    return 0


def _parser() -> Parser:
    parser = Parser("serve", ABOUT)
    parser.add_argument("model", nargs="?", default="", help="a run or model directory, a GGUF file, or a hub name")
    parser.add_argument("--reward", default="", metavar="MODEL", help="a reward model for /v1/score")
    parser.add_argument("--name", default="", help="what clients call the model [MODEL]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]; wider needs keys")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [8000]")
    parser.add_argument("--api-keys", default="", metavar="FILE", help=f"keys, one a line [the variable {KEYS}]")
    parser.add_argument("--rows", type=int, default=32, help="responses that are drawn side by side [32]")
    parser.add_argument("--context", type=int, default=0, help="longest prompt plus response [the model's; 4096]")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest response [1024]")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; further ones get 429 [256]")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a response may take [300]")
    parser.add_argument("--feedback", default="", metavar="FILE", help="keep thumbs, ratings and edits [not kept]")
    parser.add_argument("--log", default="", metavar="FILE", help="keep every prompt and response [not kept]")
    parser.add_argument(
        "--redact", default="", metavar="FILE.py:FUNCTION", help="applied to every text that is kept: f(text) -> text"
    )
    return parser


def _check(given: Any) -> None:
    """Refuse before anything is loaded."""
    if not given.model and not given.reward:
        raise ConfigError("there is nothing to serve", where="command line", cure="name a model, or --reward MODEL")
    for name, least in (("rows", 1), ("context", 0), ("queue", 1)):
        if getattr(given, name) < least:
            what = f"--{name} is {getattr(given, name)}"
            raise ConfigError(what, where="command line", cure=f"give {least} or more")
    if given.redact and not (given.log or given.feedback):
        cure = "say with --log or --feedback what is kept, or leave --redact out"
        raise ConfigError("--redact has nothing to do: nothing is kept", where="--redact", cure=cure)


def _keys(name: str) -> tuple[bytes, ...]:
    """The API keys of a file, or else of the environment."""
    from plaudit.serving.settings import keys_of

    if not name:
        return keys_of(os.environ[KEYS], KEYS) if os.environ.get(KEYS) else ()
    try:
        return keys_of(Path(name).read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=name, cure="name a text file of keys") from error


def _redaction(spec: str) -> Callable[[str], str] | None:
    if not spec:
        return None
    from plaudit.rewards.function import load_function

    return load_function(spec, where="--redact", meant="a redaction")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
