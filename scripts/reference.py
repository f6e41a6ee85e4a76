"""Write docs/reference from the code: settings, metrics, exports, names of other tools. A test checks the pages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import elsewhere

from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import MISSING, Setting, settings
from plaudit.data.reading.exports.table import EXPORTS
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.registry import COMMANDS
from plaudit.jobs.reward_tables import KINDS
from plaudit.stages import stage_of
from plaudit.tracking.names import reference_table

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->\n\n"
HEAD = "| key | flag | type | default | what it does |\n|---|---|---|---|---|\n"


def config_page() -> str:
    """Settings: those of one command first, then the tables that commands share."""
    tables = {command: settings(row.job) for command, row in COMMANDS.items()}
    defaults: dict[str, dict[str, Any]] = {}
    for command, table in tables.items():
        for setting in table:
            defaults.setdefault(setting.key, {})[command] = setting.default
    common = {key for key, given in defaults.items() if len(given) > 1 and not key.startswith("algorithm.")}
    shared = {s.key: s for table in tables.values() for s in table if s.key in common and "." in s.key}
    parts = [
        "# Settings\n\nA key is given in a TOML file or as a flag; `plaudit config FILE` shows the resolved values and "
        "where each came from. `[algorithm] type`, or the flag `--type`, says which algorithm of a command runs, and "
        "so which settings there are.\n"
    ]
    for stage in dict.fromkeys(stage_of(row.job) for row in COMMANDS.values()):
        commands = [command for command, row in COMMANDS.items() if stage_of(row.job) is stage]
        table = tables[commands[0]]
        own = [s for s in table if "." not in s.key]
        parts.append(f"## {', '.join(f'plaudit {command}' for command in commands)}\n\n{_rows(own)}")
        for section in dict.fromkeys(s.section for s in table if "." in s.key):
            inside = [s for s in table if s.section == section and s.key not in shared]
            if inside and section != "algorithm":
                parts.append(f"### [{section}]\n\n{_rows(inside)}")
        parts += [text for command in commands for text in _algorithms(command)]
    parts += [_loop(), *_rewards()]
    parts.append("## Tables that commands share\n")
    for section in dict.fromkeys(s.section for s in shared.values()):
        inside = [s for s in shared.values() if s.section == section]
        parts.append(f"### [{section}]\n\n{_rows(inside, defaults)}")
    return NOTE + "\n".join(parts)


def _algorithms(command: str) -> list[str]:
    """The ``[algorithm]`` table of each type that a command takes."""
    parts = []
    for name in types(COMMANDS[command].job):
        inside = [s for s in settings(specialise(COMMANDS[command].job, name, "")) if s.section == "algorithm"]
        if inside:
            parts.append(f'### plaudit {command}, [algorithm] type = "{name}"\n\n{_rows(inside)}')
    return parts


def _loop() -> str:
    """The settings of a loop that are its own; its tables [reward] and [policy] hold those of the commands."""
    table = [s for s in settings(LoopJob) if s.section in ("", "annotators") and s.name not in ("dataset", "out")]
    own = [s for s in table if s.key not in ("overwrite", "seed")]
    about = (
        "Besides `dataset` (the prompts), `out`, `seed` and the tables that commands share. `[reward]` holds settings "
        "of `plaudit reward`, `[policy]` those of its `command`; see [loops](../howto/loop.md)."
    )
    top = _rows([s for s in own if not s.section])
    return f"## plaudit loop\n\n{about}\n\n{top}\n### [annotators]\n\n{_rows([s for s in own if s.section])}"


def _rewards() -> list[str]:
    """The tables of rewards, one kind after the other."""
    parts = [
        "## [[reward]] and [[gold]]\n\nOne table a reward; `kind` says which keys it has. Short texts that stand for a "
        "table, on the command line and in a file, are described in [rewards](../howto/rewards.md).\n"
    ]
    for kind, table in KINDS.items():
        rows = [s for s in settings(table) if s.name != "kind"]
        lines = [
            f"| `{s.name}` | {s.expected.replace('|', chr(92) + '|')} | {_shown(s.default)} | {s.help} |" for s in rows
        ]
        head = "| key | type | default | what it does |\n|---|---|---|---|\n"
        about = " ".join((table.__doc__ or "").split())
        parts.append(f'### [[reward]] kind = "{kind}"\n\n{about}\n\n{head}' + "\n".join(lines) + "\n")
    return parts


def _rows(table: list[Setting], defaults: dict[str, dict[str, Any]] | None = None) -> str:
    lines = []
    for s in table:
        given = (defaults or {}).get(s.key, {"": s.default})
        texts = {command: _shown(value) for command, value in given.items()}
        same = len(set(texts.values())) == 1
        commands = {text: ", ".join(c for c, t in texts.items() if t == text) for text in texts.values()}
        default = next(iter(texts.values())) if same else "; ".join(f"{c}: {t}" for t, c in commands.items())
        kind = s.expected.replace("|", "\\|")
        name = s.key.rpartition(".")[2]
        lines.append(f"| `{name}` | `{s.flag}` | {kind} | {default} | {s.help.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return "required" if value is MISSING else f"`{json.dumps(value)}`"


def metrics_page() -> str:
    """Every metric of metrics.jsonl."""
    about = "What stands in `metrics.jsonl`, one object a step. Ranges say where to look first.\n"
    return f"{NOTE}# Metrics\n\n{about}\n{reference_table()}"


EXPORTS_ABOUT = """\
These are recognised by their fields, looked at over all rows, before the layouts of
[your own data](../howto/own-model-and-data.md); the name of a file plays no part. `plaudit data check FILE` says which
one it is, what was left out and how often, and which fields no record holds, also inside lists and objects.

- **Verdicts.** Who annotated is kept: a record for each annotator. A tie has strength 0, and so has "both bad", which
  is counted. Skipped, discarded and unanswered tasks are left out and counted. `--kind preference` takes the majority.
- **Margins.** A strength goes from -2 to 2. Where a scale has more steps, the size is kept beside it as the margin:
  HelpSteer's -3 is strength -2 with margin 3. A majority's margin is the mean of its votes.
- **Names that a project chose** (fields and questions of Argilla, data and tags of Label Studio, inputs of Langfuse and
  LangSmith) are found by what they hold: responses are named alike but for their ends (`answer1` and `answer2`). What
  cannot be told is refused with file and line; `--field response_a=NAME`, `--field response_b=NAME`,
  `--field prompt=NAME` and `--field label=QUESTION` say it.
- **Rankings** hold nine responses: the best nine are kept, the others counted.
- Skywork's pairs, and other pairs of whole chats, are a layout of our own.
"""


def exports_page() -> str:
    """Exports of other tools and public layouts: what is recognised, and what each becomes."""
    head = "| layout | what is read | what it becomes | shape looked up in |\n|---|---|---|---|\n"
    rows = []
    for export in EXPORTS:
        reads = ((export.convert or export.gather).__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
        rows.append(f"| {export.name} | {reads} | {export.becomes} | {export.source or 'not verified'} |")
    return f"{NOTE}# Exports of other tools, and public data sets\n\n{EXPORTS_ABOUT}\n{head}" + "\n".join(rows) + "\n"


def pages() -> dict[Path, str]:
    """Path -> text of every generated page."""
    return {
        FOLDER / "config.md": config_page(),
        FOLDER / "exports.md": exports_page(),
        FOLDER / "metrics.md": metrics_page(),
        FOLDER / "elsewhere.md": elsewhere.page(NOTE),
    }


def main() -> int:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
