"""Many clients at once against `plaudit serve`, and the same prompts in one batch: throughput as a ratio, first tokens.

    python benchmarks/serve_load.py --model MODEL [--clients 50] [--requests 2] [--tokens 32]

Both draw exactly as many tokens of the same prompts, by the same weights in the same process. Clients are a process of
their own and stream. The ratio is given twice: of seconds on the clock, which other work on the machine disturbs, and of
seconds of the processor that the serving process took, which it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

TOPICS = ("a harbor", "an old bridge", "the first snow", "a lost key", "a night train", "two gardens", "a clock", "rain")


def question(number: int) -> str:
    """A prompt of about 40 tokens, each another."""
    topic = TOPICS[number % len(TOPICS)]
    return f"Number {number}: write a short and friendly paragraph about {topic}, in which somebody learns something new."


async def one_client(client: Any, url: str, numbers: list[int], tokens: int, first: list[float]) -> int:
    """Ask one question after the other; how many chunks came."""
    chunks = 0
    for number in numbers:
        body = {
            "messages": [{"role": "user", "content": question(number)}], "max_tokens": tokens, "min_tokens": tokens,
            "seed": number, "stream": True, "logprobs": True,
        }  # fmt: skip
        began, seen = time.monotonic(), False
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                choices = json.loads(line[6:]).get("choices")
                assert choices, line
                if choices[0].get("logprobs") and not seen:
                    first.append(time.monotonic() - began)
                    seen = True
                chunks += bool(choices[0].get("logprobs"))
    return chunks


async def all_clients(url: str, clients: int, requests: int, tokens: int) -> dict[str, Any]:
    """All clients side by side."""
    import httpx

    first: list[float] = []
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        began = time.monotonic()
        work = [
            one_client(client, url, [c * requests + r for r in range(requests)], tokens, first) for c in range(clients)
        ]
        chunks = sum(await asyncio.gather(*work))
    return {"seconds": time.monotonic() - began, "tokens": chunks, "first": sorted(first)}


def batch(generator: Any, chat: Any, count: int, tokens: int) -> dict[str, float]:
    """All prompts at once; seconds on the clock and of the processor."""
    from plaudit.config.sections import SamplingSection
    from plaudit.records import Message, Prompt
    from plaudit.runtime import TokenPrompt

    contents = [(Message("user", question(number)),) for number in range(count)]
    prompts = [TokenPrompt(Prompt(str(i), c), tuple(chat.prompt_ids(c))) for i, c in enumerate(contents)]
    sampling = SamplingSection(max_new_tokens=tokens, min_new_tokens=tokens)
    began, cpu = time.monotonic(), time.process_time()
    drawn = sum(len(r.response_ids) for r in generator.generate(prompts, 1, sampling, seed=0, iteration=0))
    return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu, "tokens": drawn}


def served(host: Any, given: argparse.Namespace) -> dict[str, Any]:
    """The same by clients over HTTP."""
    import uvicorn

    from plaudit.annotate.server.connections import TimedConnection, listen
    from plaudit.serving.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(host), log_level="error", http=TimedConnection, lifespan="off"))
    sockets = [listen("127.0.0.1", host.settings.port)]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    words = [sys.executable, __file__, "--url", f"http://127.0.0.1:{host.settings.port}"]
    words += [f"--{name}={getattr(given, name)}" for name in ("clients", "requests", "tokens")]
    cpu = time.process_time()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    figures["cpu"] = time.process_time() - cpu
    server.should_exit = True
    thread.join()
    return figures


def compared(given: argparse.Namespace) -> dict[str, Any]:
    """Both, in this process."""
    from plaudit import backends
    from plaudit.serving.host import Host
    from plaudit.serving.settings import ServingSettings

    inside = Path(given.model) / "model"
    generator, chat = backends.open_policy(str(inside if inside.is_dir() else given.model))
    alone = batch(generator, chat, given.clients * given.requests, given.tokens)
    engine, chat = backends.open_engine(given.model, rows=given.rows)
    host = Host(ServingSettings("m", port=given.port, timeout=36_000.0), engine, chat)
    many = served(host, given)
    host.close()
    first = many.pop("first")
    return {
        "clients": given.clients, "tokens": many["tokens"], "batch": alone, "served": many,
        "ratio_clock": many["tokens"] / many["seconds"] / (alone["tokens"] / alone["seconds"]),
        "ratio_processor": many["tokens"] / many["cpu"] / (alone["tokens"] / alone["cpu"]),
        "first_token_p50": first[len(first) // 2], "first_token_p95": first[int(0.95 * (len(first) - 1))],
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a run or model directory, a GGUF file, or a hub name")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=2, help="of each client, one after the other")
    parser.add_argument("--tokens", type=int, default=32, help="of each response")
    parser.add_argument("--rows", type=int, default=64, help="responses drawn side by side; batch generation has 64")
    parser.add_argument("--port", type=int, default=8917)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)  # of the process of the clients
    given = parser.parse_args()
    if given.url:
        print(json.dumps(asyncio.run(all_clients(given.url, given.clients, given.requests, given.tokens))))
        return
    print(json.dumps(compared(given), indent=2))


if __name__ == "__main__":
    main()
