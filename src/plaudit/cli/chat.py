"""`plaudit chat`: talk to a model, or to the model of a run."""

from __future__ import annotations

import contextlib
import sys

from plaudit.cli.parser import Parser, show
from plaudit.config.load import load_section
from plaudit.config.sections import SamplingSection
from plaudit.records import Content, Message

ABOUT = """Talk to a model, or to two side by side. An empty line or /quit ends, /new starts over.
A model without a chat template goes on from your text."""
GREETING = "Type a message and press Enter. /new starts over; an empty line or /quit ends."


def run(command: str, argv: list[str]) -> int:
    """Load the model and loop over the lines of stdin."""
    parser = Parser("chat", ABOUT)
    parser.add_argument("model", help="a run directory, a model directory, a GGUF file, or a hub name")
    parser.add_argument("--against", help="a second model, which answers the same messages")
    parser.add_argument(
        "--temperature", type=float, default=0.7, help="lower is more predictable (default: 0.7)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer (default: 256)")
    parser.add_argument("--system", default="", help="a system message at the start of the conversation")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed and words give the same answers (default: 0)"
    )
    given = parser.parse_args(argv)
    chosen = {"temperature": given.temperature, "max_new_tokens": given.max_new_tokens}
    sampling = load_section(SamplingSection, chosen)
    from plaudit.stages.respond.policy import TrainedPolicy

    names = [given.model, given.against] if given.against else [given.model]
    policies = [TrainedPolicy(name) for name in names]
    opening = (Message("system", given.system),) if given.system else ()
    histories: list[tuple[Message, ...]] = [opening] * len(policies)
    if sys.stdin.isatty():
        print(GREETING, file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):  # as good a way to leave as any
        for count, line in enumerate(iter(_ask, "")):
            if line == "/new":
                histories = [opening] * len(policies)
                continue
            for which, policy in enumerate(policies):
                turns = (*histories[which], Message("user", line))
                content: Content = turns if policy.has_template else line
                response = policy.respond(content, sampling, seed=given.seed, turn=count)
                show(f"{names[which]}: {response}" if given.against else response)
                histories[which] = (*turns, Message("assistant", response))
    return 0


def _ask() -> str:
    """One line from the user; empty at the end."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline().strip()
    return "" if line in ("/quit", "/exit") else line
