"""docs/why/never-lose-work.md from what kills.py, io_points.py, power_loss.py and corruption.py saved beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corruption import BEGUN, DAMAGES
from small_runs import TRAINERS

FOLDER = Path(__file__).parent.parent / "docs" / "why"
FIGURES, PAGE = FOLDER / "never-lose-work.json", FOLDER / "never-lose-work.md"
KILLS = 500
"""What is wanted."""

HEAD = """# Is work ever lost?

By `make kills`, which goes on where it stopped; figures in never-lose-work.json. Runs of tiny models (one layer, 128
wide), one second to some seconds each, on {processor}, with other work beside them. Every disturbed run ends with the
same command that started it. **Equal** means to the last bit: the weights; of the newest checkpoint every file
(optimizer states, counters, controllers); every line of the figures, samples and evaluations but times; the summary.
And no checkpoint that was reported as saved is missing.

{total}
"""
RANDOM = """## Killed at random instants

SIGKILL after an amount of processor time that is drawn at random, several times in one run, so that it hits starting,
training, saving, resuming, evaluating and writing the page. {moments}.
"""
POINTS = """## Each point at which a run touches the disk

Opening, writing, syncing, renaming, making and removing are counted; at one of them the run is killed (a write is done
by half), or the disk is full from then on, or there is one input or output error. An error must come with exit code 74
and name its file. {share}
"""
POWER = """## Power cuts

Of every file only the content of its last sync is left, of every directory the names of its last sync; or all names
with those contents; or a choice by chance for each, where what was not synced may be cut off or zeros.
"""
DAMAGED = """## Damaged files

By `make corruption`, which goes on where it stopped. Each file of a run and of its model but the checkpoints (which
have a test of their own: 269 of 269 damages are found) is damaged in one of {ways} ways: {names}. Then one command
reads it: the training command with --resume and more to do, `report`, `chat`, `evaluate`, and `best-of-n` with what the
run made as its policy or its reward. Well is the result of the undamaged run, or an error that names the file and the
cure; never a traceback. A file that a command never opens is damaged for it only in ways that its name shows. Rows of
figures have no checksum: where a flipped bit makes one digit another, nobody can know.
"""
OTHERS = """## Clocks, and two writers

A clock that jumps by up to 40 years with every look at it, beside file times that are as wrong; and the same command
given to two processes at once, one of which is killed.
"""


MENDED = (
    "Mended since, by what the code tells, not by trying that kill again: the run was killed after a checkpoint had "
    "been rotated away and before the best weights that only it named were; a resumed run now removes such a file."
)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def of(good: int, all_: int) -> str:
    """As "12 of 12"; a dash where nothing was tried."""
    return f"{good} of {all_}" if all_ else "-"


def random_kills(figures: dict[str, Any]) -> str:
    """Trainers by threads."""
    rows = []
    for name in TRAINERS:
        cells = []
        for threads in (1, 2):
            mine = [row for row in figures["rows"] if (row["trainer"], row["threads"]) == (name, threads)]
            cells.append(of(sum(row["equal"] for row in mine), sum(row["kills"] for row in mine)))
        rows.append([name, *cells])
    return table(["trainer", "equal, 1 thread", "equal, 2 threads"], rows)


def good_of(row: dict[str, Any]) -> str:
    """How many of the points that were tried ended well."""
    return of(len(row["tried"]) - len(row["wrong"]), len(row["tried"]))


def points(rows: Sequence[dict[str, Any]]) -> str:
    """Trainers by faults."""
    lines = []
    for name in TRAINERS:
        mine = {row["fault"]: row for row in rows if row["trainer"] == name}
        cells = [good_of(mine[fault]) if fault in mine else "-" for fault in ("kill", "full", "error")]
        lines.append([name, max((row["points"] for row in mine.values()), default="-"), *cells])
    return table(["trainer", "points in all", "killed", "disk full", "I/O error"], lines)


def damaged(rows: Sequence[dict[str, Any]]) -> str:
    """Readers by trainers, over all damages."""
    trainers = list(dict.fromkeys(row["trainer"] for row in rows))
    lines = []
    for reader in dict.fromkeys(row["reader"] for row in rows):
        mine = {row["trainer"]: row for row in rows if row["reader"] == reader}
        cells = [f"{good_of(mine[name])} (of {mine[name]['points']})" if name in mine else "-" for name in trainers]
        lines.append([reader, *cells])
    return table(["read by", *(f"{name}: well, of those tried (of all)" for name in trainers)], lines)


def missing(figures: dict[str, Any]) -> list[str]:
    """What was wanted and is not there, in plain words."""
    rows, spoiled, power = figures["kills"]["rows"], figures["points"], figures["power"]
    kills = sum(row["kills"] for row in rows) + sum(len(row["tried"]) for row in spoiled if row["fault"] == "kill")
    said = [f"{KILLS} kills are wanted, and {kills} were made."] if kills < KILLS else []
    for threads in (1, 2):
        there = {row["trainer"] for row in rows if row["threads"] == threads and row["kills"]}
        without = [name for name in TRAINERS if name not in there]
        if without:
            said.append(f"Not killed at random with {threads} thread{'s' * (threads > 1)}: {'; '.join(without)}.")
    tried, all_ = sum(len(row["tried"]) for row in spoiled), sum(row["points"] for row in spoiled)
    if tried < all_:
        said.append(f"Of {all_} points with their faults {tried} were tried, the others were not.")
    untried = [name for name in TRAINERS if name not in {row["trainer"] for row in spoiled if row["tried"]}]
    said += [f"No point of these was tried: {'; '.join(untried)}."] if untried else []
    cut = [f"{row['trainer']} ({len(row['tried'])} of {row['points']})" for row in power]
    said.append(f"The power was cut in these only, at some of their operations: {', '.join(cut) or 'none'}.")
    cells = figures["corruption"]
    done, whole = sum(len(row["tried"]) for row in cells), sum(row["points"] for row in cells)
    if done < whole:
        said.append(f"Of {whole} damaged files with their readers {done} were tried.")
    left = [name for name in BEGUN if name not in {row["trainer"] for row in cells if row["tried"]}]
    said += [f"No file of these was damaged: {'; '.join(left)}."] if left else []
    others = figures["kills"]["others"].values()
    wrong = [text for row in [*rows, *spoiled, *power, *cells, *others] for text in row["wrong"]]
    said += [f"Not equal: {text[:300]}" for text in wrong]
    said += [MENDED] if any("best/step" in text for text in wrong) else []
    return [*said, "GPUs, several machines and models of real size were not disturbed in this way."]


def page(figures: dict[str, Any]) -> str:
    """The text."""
    kills, spoiled, power = figures["kills"], figures["points"], figures["power"]
    at_points = [row for row in spoiled if row["fault"] == "kill"]
    made = sum(row["kills"] for row in kills["rows"]), sum(len(row["tried"]) for row in at_points)
    good = sum(row["equal"] for row in kills["rows"]), made[1] - sum(len(row["wrong"]) for row in at_points)
    refused = [row for row in spoiled if row["fault"] != "kill"]
    tries = sum(len(row["tried"]) for row in refused), sum(len(row["tried"]) for row in power)
    fine = tries[0] - sum(len(row["wrong"]) for row in refused), tries[1] - sum(len(row["wrong"]) for row in power)
    cells = figures["corruption"]
    read = sum(len(row["tried"]) - len(row["wrong"]) for row in cells), sum(len(row["tried"]) for row in cells)
    total = (
        f"**{of(sum(good), sum(made))} kills end equal** ({of(good[0], made[0])} at random instants, "
        f"{of(good[1], made[1])} at a point of the disk), {of(fine[0], tries[0])} refusals of the disk, "
        f"{of(fine[1], tries[1])} power cuts, and {of(*read)} damaged files."
    )
    seen = kills["instants"]
    fell = "; ".join(f"{count} while {name}" for name, count in sorted(seen.items()))
    moments = f"Of {sum(seen.values())} kills it was noted where they fell: {fell}"
    all_points = sum(row["points"] for row in spoiled)
    share = f"Tried were {sum(len(row['tried']) for row in spoiled)} of {all_points} points with their faults."
    parts = [
        HEAD.format(processor=figures["processor"], total=total),
        "**What is missing.**\n",
        "\n".join(f"- {text}" for text in missing(figures)) + "\n",
        RANDOM.format(moments=moments),
        random_kills(kills),
        POINTS.format(share=share),
        points(spoiled),
        POWER,
        table(["trainer", "operations", "equal"], [[row["trainer"], row["points"], good_of(row)] for row in power]),
        DAMAGED.format(ways=len(DAMAGES), names=", ".join(DAMAGES)),
        damaged(figures["corruption"]),
        OTHERS,
        table(["disturbance", "equal"], [[kind, of(o["equal"], o["tried"])] for kind, o in kills["others"].items()]),
    ]
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
