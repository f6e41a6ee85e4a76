"""`plaudit chat`: talk to a model, or to the model of a run; or to two, side by side."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

from plaudit.cli.parser import Parser
from plaudit.config.load import load_section
from plaudit.config.sections import SamplingSection
from plaudit.data.served import Said, Store
from plaudit.errors import ConfigError, PlauditError

ABOUT = """Talk to a model, or to two side by side. /help shows what can be typed; an empty line or /quit ends.
What you say of answers (/up, /down, /a, /b ...) is kept in a file, and nothing else is.
A model without a chat template goes on from your text."""
ONE = """Type a message and press Enter. Of the last answer: /up, /down, /rate NUMBER, /edit BETTER TEXT.
/new starts over, /system TEXT starts over with a system message; an empty line or /quit ends."""
TWO = """Type a message and press Enter; both answer. /a, /b or /tie: which answer is better; both go on from it.
Of one of them: /up a, /down b, /rate a NUMBER, /edit a BETTER TEXT.
/new starts over, /system TEXT starts over with a system message; an empty line or /quit ends."""


def run(command: str, argv: list[str]) -> int:
    """Load the models and loop over the lines of stdin."""
    given = _parser().parse_args(argv)
    if given.blind and not given.against:
        raise ConfigError("--blind needs two models", where="--blind", cure="name the other one with --against")
    chosen = {"temperature": given.temperature, "max_new_tokens": given.max_new_tokens}
    sampling = load_section(SamplingSection, {**chosen, "text": "plain"})
    from plaudit.stages.respond.talk import Conversation, Talker

    names = [given.model, given.against] if given.against else [given.model]
    talkers = [Talker.of(name) for name in names]
    talk = Conversation(talkers, sampling, given.seed, given.blind, given.system)
    chat = Chat(talk, given.feedback)
    try:
        if sys.stdin.isatty():
            chat.tell(chat.greeting)
        with contextlib.suppress(KeyboardInterrupt):  # as good a way to leave as any
            for line in iter(_ask, ""):
                chat.take(line)
    finally:
        for talker in talkers:
            talker.engine.close()
    return 0


def _parser() -> Parser:
    parser = Parser("chat", ABOUT)
    parser.add_argument("model", help="a run directory, a model directory, a GGUF file, or a hub name")
    parser.add_argument("--against", help="a second model, which answers the same messages")
    parser.add_argument("--blind", action="store_true", help="do not show which of the two says what until you chose")
    parser.add_argument(
        "--temperature", type=float, default=0.7, help="lower is more predictable (default: 0.7)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer (default: 256)")
    parser.add_argument("--system", default="", help="a system message at the start of the conversation")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed and words give the same answers (default: 0)"
    )
    parser.add_argument(
        "--feedback", default="feedback.jsonl", metavar="FILE", help="keeps what you say of answers [feedback.jsonl]"
    )
    return parser


class Chat:
    """A conversation on a terminal, or through pipes: answers go to stdout, everything else to stderr.

    Args:
        talk: the conversation.
        feedback: the file that keeps what is said of answers; made when something is said.
    """

    def __init__(self, talk: Any, feedback: str) -> None:
        self._talk, self._file = talk, feedback
        self._store: Store | None = None
        self._several = len(talk.talkers) > 1
        self.greeting = TWO if self._several else ONE

    def take(self, line: str) -> None:
        """A message, or a word with a slash; what is wrong is said, and the conversation goes on."""
        word, _, rest = line.partition(" ")
        try:
            if re.fullmatch(r"/[a-z]+", word):
                self._command(word, rest.strip())
            else:
                self._answers(line)
        except PlauditError as error:
            self.tell(str(error))

    def tell(self, text: str) -> None:
        """For the person, and not part of the conversation."""
        print(text, file=sys.stderr, flush=True)

    def _answers(self, line: str) -> None:
        said = []
        for letter, talker in zip("AB", self._talk.order(), strict=False):
            prompt = talker.prompt(line)
            if self._several:
                sys.stdout.write(f"{letter if self._talk.blind else talker.name}: ")
            text = ""
            # Ctrl-C ends an answer; at the prompt it ends the conversation.
            with contextlib.suppress(KeyboardInterrupt):
                for piece in talker.answer(prompt, self._talk.sampling, self._talk.seed, self._talk.turn):
                    text += piece
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            sys.stdout.write("" if text.endswith("\n") else "\n")
            sys.stdout.flush()
            said.append((talker, prompt, text))
        self._talk.noted(line, said)

    def _command(self, word: str, rest: str) -> None:
        commands: dict[str, Callable[[str], None]] = {
            "/new": self._new, "/system": self._system, "/help": lambda rest: self.tell(self.greeting),
            "/up": lambda rest: self._judge("thumb", "up", rest),
            "/down": lambda rest: self._judge("thumb", "down", rest),
            "/rate": self._rate, "/edit": self._edit,
        }  # fmt: skip
        if self._several:
            commands["/a"] = lambda rest: self._choose("a")
            commands["/b"] = lambda rest: self._choose("b")
            commands["/tie"] = lambda rest: self._choose("")
        if word not in commands:
            cure = f"there is {', '.join(commands)}; a message may begin with a space"
            raise ConfigError(f"there is no {word}", where="the conversation", cure=cure)
        commands[word](rest)

    def _new(self, rest: str) -> None:
        self._talk.start_over()

    def _system(self, rest: str) -> None:
        self._talk.system = rest
        self._talk.start_over()

    def _judge(self, form: str, value: str | float, which: str) -> None:
        self._keep(self._talk.judged(form, value, which.lower()))

    def _rate(self, rest: str) -> None:
        which, number = self._split(rest)
        try:
            value = float(number)
        except ValueError as error:
            what = f"{number!r} is no number"
            raise ConfigError(what, where="/rate", cure="such as: /rate 7" + " or /rate a 7" * self._several) from error
        self._judge("rating", value, which)

    def _edit(self, rest: str) -> None:
        which, text = self._split(rest)
        self._judge("edit", text, which)

    def _split(self, rest: str) -> tuple[str, str]:
        """Which answer is meant, where there are two, and the rest."""
        first, _, after = rest.partition(" ")
        return (first.lower(), after.strip()) if self._several else ("", rest)

    def _choose(self, which: str) -> None:
        said = self._talk.chosen(which)
        self._keep(said)
        if self._talk.blind:
            self.tell(f"A was {said.models[0]}, B was {said.models[1]}")

    def _keep(self, said: Said) -> None:
        if self._store is None:
            self._store = Store(self._file)
        self._store.add(said)
        self.tell(f"kept in {self._file}")


def _ask() -> str:
    """One line from the user; empty at the end."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline().strip()
    return "" if line in ("/quit", "/exit") else line
