"""Made-up and damaged inputs, for as long as is asked: does every one end without an uncaught exception?

Readers of data, imports of annotations, chat templates, config files and flags are given mutants of the files in
tests/data/wild and of small grammars. Case number n is the same on every machine: its seed is n.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"  # a word that looks like the name of a data set must not go to the network
sys.path.insert(0, str(ROOT / "tests" / "data" / "wild"))

from corpus import CORPUS  # noqa: E402

from plaudit.config.load import Layer, load_job  # noqa: E402
from plaudit.data.chat.template import Template  # noqa: E402
from plaudit.data.lint import lint  # noqa: E402
from plaudit.data.load import load_records  # noqa: E402
from plaudit.errors import PlauditError  # noqa: E402
from plaudit.jobs.registry import COMMANDS  # noqa: E402
from plaudit.preferences.importing import items_of  # noqa: E402
from plaudit.records import Message  # noqa: E402

FILES = {name: case.put for name, case in CORPUS.items() if isinstance(case.put, bytes)}
PIECES = [b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"null", b"NaN", b"1e999",
          b"\\ud800", b"\xe2\x80\xae", b"-1", b"true", b'{"role": "user"}', b"9" * 40]  # fmt: skip
NAMES = "id prompt response chosen rejected messages label labels responses ranks reward axes margin".split()
NAMES += ["data", "fields"]
NAMES += "annotations result value completed_by from_name selected message_id parent_id text role rank".split()
TEMPLATES = ["{{ m.content }}", "{% for m in messages %}", "{% endfor %}", "{{ m['role'] }}",
             "{% if m.role == 'user' %}", "{% endif %}", "{{ raise_exception('no') }}", "{{ messages[9].content }}",
             "{{ 1/0 }}", "{% set x = 1 %}",
             "<s>", "{{ m.content | trim }}", "{{ tools | tojson }}", "{%", "}}", "{{ 'a' * 1000 }}"]  # fmt: skip
VALUES = ["1", "-1", "1e999", "nan", '"x"', "[]", "{}", "true", "2024-01-01", '""', "9" * 30, "[1, [2]]", '"\\u202e"']


def mutant(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one to four changes: a piece put in, cut out, doubled, or a byte flipped."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        end = min(end, at + 200)
        how = rng.randrange(4)
        if how == 0:
            data = data[:at] + rng.choice(PIECES) + data[at:]
        elif how == 1:
            data = data[:at] + data[end:]
        elif how == 2:
            data = data[:end] + data[at:]
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


def value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value of names that the readers know."""
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind < 5:
        return (None, rng.random() < 0.5, rng.randint(-3, 9), rng.choice(["a", "user", "", "tie", "left"]), 0.5)[kind]
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def data_file(rng: random.Random, folder: Path) -> None:
    """A mutant of the corpus, or rows of the grammar; read, looked at, and made into items to annotate."""
    name = rng.choice(sorted(FILES))
    data = mutant(rng, FILES[name])
    if rng.random() < 0.4:
        rows = [{rng.choice(NAMES): value(rng) for _ in range(rng.randint(1, 6))} for _ in range(rng.randint(1, 4))]
        name, data = "a.json", json.dumps(rows).encode()
    path = folder / name
    path.write_bytes(data)
    records = load_records(str(path)).records
    lint(records)
    items_of(records, rng.choice(["pairwise", "ranking", "rating", "thumbs", "demonstration"]), gold=rng.random() < 0.5)


def config(rng: random.Random, folder: Path) -> None:
    """A config file of known and unknown keys with values of any type, and flags beside it."""
    job = rng.choice([row.job for row in COMMANDS.values()])
    keys = ["lr", "optimizer", "data", "seed", "out", "epochs", "algorithm", "type", "max_length", "x\u202e", "reward"]
    lines = []
    for _ in range(rng.randint(0, 6)):
        line = f"[{rng.choice(keys)}]" if rng.random() < 0.3 else f"{rng.choice(keys)} = {rng.choice(VALUES)}"
        lines.append(line)
    text = mutant(rng, "\n".join(lines).encode()) if rng.random() < 0.5 else "\n".join(lines).encode()
    path = folder / "a.toml"
    path.write_bytes(text)
    flags = [f"{rng.choice(keys)}={rng.choice(VALUES)}" for _ in range(rng.randint(0, 3))]
    load_job(job, [Layer.read(path)], flags)


class Tokenizer:
    """The part of a tokenizer that writes chats, with a template that nobody has checked."""

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        """A chat as text."""
        from transformers.utils.chat_template_utils import render_jinja_template

        options.pop("tokenize", None)
        [text], _ = render_jinja_template([messages], chat_template=self.chat_template, **options)
        return str(text)


def template(rng: random.Random, folder: Path) -> None:
    """A chat template made of pieces, asked what it knows and given a chat."""
    pieces = "".join(rng.choice(TEMPLATES) for _ in range(rng.randint(1, 6)))
    made: Any = Template(Tokenizer(pieces))  # type: ignore[arg-type]
    made.opened, made.tail, made.trims, made.writes_tools, made.written_call, made.key_of_thoughts  # noqa: B018
    made.write([Message("user", "a"), Message("assistant", "b")], open_end=rng.random() < 0.5)


def flags(rng: random.Random, folder: Path) -> None:
    """A command line of known commands, flags and values."""
    from plaudit.cli.main import main

    words = [rng.choice(["config", "data", "annotate", "evaluate", "report", "compare", "select", "frontier"])]
    known = ["--lr", "--limit", "--kind", "--field", "check", "import", "--db", "--out", "--seed", "x=", "=", "-", "--"]
    words += [rng.choice([*known, *VALUES, "\u202e", "a" * 5000]) for _ in range(rng.randint(0, 5))]
    words = [str(folder / word) if word in ("import",) else word for word in words]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.chdir(folder):
        main(words)
    if "BUG" in out.getvalue():
        raise AssertionError(f"{words}: {out.getvalue()[:300]}")


TARGETS: dict[str, Callable[[random.Random, Path], None]] = {
    "data files and imports": data_file, "config files": config, "chat templates": template, "flags": flags,
}  # fmt: skip
SHARES = [0.6, 0.2, 0.1, 0.1]


def case(number: int, folder: Path) -> tuple[str, str]:
    """Run one case: its target, and the traceback of what was not caught, or ""."""
    rng = random.Random(number)
    [name] = rng.choices(list(TARGETS), SHARES)
    try:
        with contextlib.suppress(PlauditError):
            TARGETS[name](rng, folder)
    except Exception:
        return name, traceback.format_exc()
    return name, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--save", type=Path, help="write what was found as JSON")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    failed: dict[int, str] = {}
    number, slowest, begin = given.first, (0.0, 0), time.monotonic()
    while time.monotonic() - begin < given.seconds:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            name, found = case(number, Path(folder))
        slowest = max(slowest, (time.monotonic() - started, number))
        counts[name] += 1
        if found:
            failed[number] = found
            print(f"case {number}, {name}:\n{found}", flush=True)
        number += 1
    result = {
        "seconds": round(time.monotonic() - begin), "cases": dict(counts), "failed": sorted(failed),
        "slowest_seconds": round(slowest[0], 2), "slowest_case": slowest[1],
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if given.save:
        given.save.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
