"""Runs of every trainer that take a second, in processes of their own; and what must not differ at their end.

`kills.py` and `power_loss.py` disturb them. The process that imports this module runs nothing itself: it imports what
runs need, and forks. So children start at once, and no thread of a library is lost by a fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Two threads on a busy machine would spend most of their time waiting for each other in a loop.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.loop.conftest import CONFIG, SCORE
from tests.stages.conftest import World
from transformers import AutoTokenizer

from plaudit.cli.main import main as plaudit
from plaudit.jobs.registry import COMMANDS
from plaudit.models.tiny import tiny_lm
from plaudit.stages import stage_of

TIMES = ("time", "throughput", "memory", "seconds", "created", "written")
"""What names begin with that differ from run to run."""
COMMON = """\
out = "{out}"
[compute]
precision = "fp32"
threads = {threads}
[log]
trackers = []
samples = 2
[checkpoint]
every = {every}
[optimizer]
lr = 1e-3
"""
SHORT = "\n[sampling]\nmax_new_tokens = 5\n"
OFFLINE = 'model = "{lm}"\ndataset = "{data}"\nbatch_size = 8\nepochs = 2\n'
ONLINE = """\
policy = "{lm}"
dataset = "{prompts}"
reward = ["{reward}"]
iterations = 4
prompts_per_iteration = 4
eval_every = 2
eval_prompts = 3
"""
GROUPS = f"{SHORT}[algorithm]\ngroup_size = 2\n"


@dataclass(frozen=True, slots=True)
class Trainer:
    """One way to train: the command, its own settings, and tables that follow those which all have."""

    command: str
    settings: str
    tables: str = ""
    data: str = ""
    """The data it reads, where that is not prompts."""
    flags: tuple[str, ...] = ()


TRAINERS = {
    "SFT": Trainer("sft", OFFLINE, data="demonstrations"),
    "SFT, two seeds": Trainer("sft", OFFLINE, data="demonstrations", flags=("--seeds", "2")),
    "reward model": Trainer("reward", OFFLINE, data="preferences"),
    "DPO": Trainer("dpo", OFFLINE, data="preferences"),
    "KTO": Trainer("dpo", OFFLINE, '[algorithm]\ntype = "kto"\n', "preferences"),
    "ORPO": Trainer("dpo", OFFLINE, '[algorithm]\ntype = "orpo"\n', "preferences"),
    "PPO": Trainer("ppo", ONLINE, f"{SHORT}[algorithm]\ncritic_warmup = 1\nepochs = 2\n"),
    "PPO, one trunk": Trainer("ppo", ONLINE, f'{SHORT}[algorithm]\ncritic = "trunk"\ncritic_warmup = 1\nepochs = 2\n'),
    "GRPO": Trainer("grpo", ONLINE, GROUPS),
    "DAPO": Trainer("grpo", ONLINE, f'{GROUPS}type = "dapo"\n'),
    "RLOO": Trainer("rloo", ONLINE, GROUPS),
    "REINFORCE++": Trainer("reinforce", ONLINE, f'{SHORT}[algorithm]\ntype = "reinforce_pp"\n'),
    "online DPO": Trainer("online-dpo", ONLINE, GROUPS),
    "best-of-n rounds": Trainer(
        "best-of-n",
        'policy = "{lm}"\ndataset = "{prompts}"\nreward = ["{reward}"]\nrounds = 2\nbatch_size = 4\n',
        GROUPS,
    ),
    "loop": Trainer("loop", ""),
}
"""By the name in the tables of the page."""


class SmallRuns:
    """Models and data for `TRAINERS`, made once below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        made, imported = root / "made.txt", root / "imported.txt"
        for row in COMMANDS.values():
            stage_of(row.job)
        if in_child(lambda: self._make(imported), made):
            raise SystemExit(made.read_text(encoding="utf-8"))
        # What the first run has imported on its way, the others need not.
        for module in [*imported.read_text(encoding="utf-8").split(), "plaudit.cli.loop", "plaudit.loop.rounds"]:
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        # Thousands of regular expressions, which every model that is loaded asks for.
        with contextlib.suppress(Exception):
            importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("llama")

    def _make(self, imported: Path) -> int:
        world = World(self.root)
        # Wide enough that two threads share the work of a matrix product.
        tokenizer = AutoTokenizer.from_pretrained(world.lm)
        tiny_lm("llama", tokenizer, hidden=128, layers=1, scale=0.2).save_pretrained(world.lm)
        (self.root / "score.py").write_text(SCORE, encoding="utf-8")
        code = plaudit(["reward", str(self.config("reward model", self.root / "rm", threads=1))])
        imported.write_text(" ".join(sys.modules), encoding="utf-8")
        return code

    def config(self, name: str, out: Path, threads: int, every: int = 1) -> Path:
        """Write the config of a trainer for a run directory; returns its path."""
        trainer, root = TRAINERS[name], self.root
        places: dict[str, Any] = {
            "lm": root / "lm", "model": root / "lm", "prompts": root / "prompts.jsonl", "score": root / "score.py",
            "reward": root / "rm" / "model", "data": root / f"{trainer.data}.jsonl", "out": out, "threads": threads,
            "every": every,
        }  # fmt: skip
        text = (trainer.settings + COMMON + trainer.tables).format(**places)
        if trainer.command == "loop":
            text = CONFIG.format(**places).replace("threads = 1", f"threads = {threads}")
        path = out.parent / f"{out.name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def words(self, name: str, config: Path) -> list[str]:
        """The command line that starts a run and goes on with it: each time the same one."""
        command, flags = TRAINERS[name].command, TRAINERS[name].flags
        more = [] if command == "loop" else ["--resume"]
        online = "reward = " in TRAINERS[name].settings or command == "loop"
        return [command, str(config), *flags, *more, *(["--anyway"] if online else [])]


def start(work: Callable[[], int], log: Path) -> int:
    """Begin work in a child process whose console is a file; the number of the process."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        with log.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], int], log: Path) -> int:
    """Do work in a child process; its exit code."""
    return ended(start(work, log))


def tail(log: Path) -> str:
    """The last lines of a console."""
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


def results(out: Path) -> dict[str, str]:
    """SHA-256, by file, of what must not depend on how often a run was interrupted; times and places are left out.

    These are the weights, every line of every JSONL file but events, the summary, that there is a page, and of the
    newest checkpoint all files: optimizer states, counters and controllers.
    """
    found: dict[str, str] = {}
    newest = {max(one.glob("step-*"), default=one) for one in out.rglob("checkpoints")}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if "checkpoints" in path.parts:
            kept = path.parent in newest and path.name != "MANIFEST.json"
        else:
            kept = path.name in ("summary.json", "loop.json", "seeds.json", "report.html") or (
                path.suffix in (".safetensors", ".jsonl") and path.name != "events.jsonl"
            )
        if kept and path.is_file():
            found[name] = hashlib.sha256(_content(path, out)).hexdigest()
    return found


def _content(path: Path, out: Path) -> bytes:
    if path.suffix == ".safetensors":
        return path.read_bytes()
    if path.suffix == ".html":  # it says how long the run took
        return b"there"
    text = path.read_text(encoding="utf-8").replace(str(out), "OUT")
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    return json.dumps([_without_times(row) for row in rows]).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_times(one) for key, one in value.items() if not key.startswith(TIMES)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_times(one) for one in value]
    return value


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The files in which two ends differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def kept(path: Path | None) -> dict[str, Any]:
    """The figures that a study has saved so far, by the name of the study."""
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}


def keep(path: Path | None, study: str, figures: Any) -> None:
    """Save the figures of a study beside those of others; and on which processor."""
    if path:
        known = {"processor": processor()} | kept(path) | {study: figures}
        temporary = path.with_suffix(".partial")  # so that a study that is killed loses nothing
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)


def row_of(rows: list[dict[str, Any]], which: dict[str, Any]) -> dict[str, Any]:
    """The row of the figures with these values, added where there is none yet."""
    found = next((row for row in rows if which.items() <= row.items()), None)
    if found is None:
        found = {**which, "points": 0, "tried": [], "wrong": []}
        rows.append(found)
    return found


def attempts(
    row: dict[str, Any], points: Iterable[tuple[Any, str, Callable[[], str]]], until: float, save: Callable[[], None]
) -> None:
    """Try each point that a row of the figures lacks, and say how many ended well.

    Args:
        row: of `row_of`.
        points: what stands in the row for it, its name in words, and what is done there: "" or what was wrong then.
        until: no point is begun after this time of the monotonic clock.
        save: called after each.
    """
    name = ", ".join(str(row[key]) for key in row if key not in ("points", "tried", "wrong"))
    for point, words, attempt in points:
        if point in row["tried"] or time.monotonic() > until:
            continue
        said = attempt()
        row["tried"].append(point)
        if said:
            row["wrong"].append(f"{words}: {said[:1500]}")
            print(f"{name}, {row['wrong'][-1]}", flush=True)
        save()
    good, tried = len(row["tried"]) - len(row["wrong"]), len(row["tried"])
    print(f"{name}: {good} of {tried} ({row['points']} points)", flush=True)


def processor() -> str:
    """The name of this machine's processor, and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} cores"
