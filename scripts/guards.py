"""What guards keep: the gold reward of the model that is handed out, on prompts kept for the end, with and without.

python scripts/guards.py --keep DIR --part means      one means at a time, PPO, two worlds, seeds 0 to 3
python scripts/guards.py --keep DIR --part worlds     the chosen guards in all worlds, PPO, seeds 0 to 7

A run that is there is not made again. "blind" runs have no gold reward: the script judges their model afterwards by the
true score, on the same prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from hacking import LEAST, gold_of, load
from worlds import REPORTED, record

from plaudit.evaluation.choice import difference, means_of

MEANS: dict[str, dict[str, Any]] = {
    "none": {},
    "bounded reward (PAR)": {"reward_scaling": "bounded"},
    "averaged weights of 3 (WARM)": {"members": 3, "ensemble": "weights"},
    "length apart (ODIN)": {"odin": True},
    "lowest of 3": {"members": 3, "ensemble": "min"},
    "mean less deviation of 3": {"members": 3, "ensemble": "mean_minus_std"},
    "adaptive KL, target 3": {"kl_target": 3.0, "kl_coef": 0.05},
    "KL 0.1": {"kl_coef": 0.1},
    "stop on an alarm": {"on_alarm": "stop"},
    "back on an alarm": {"on_alarm": "back"},
    "KL 0.1, mean less deviation of 3, back": {
        "kl_coef": 0.1, "members": 3, "ensemble": "mean_minus_std", "on_alarm": "back"
    },
    "back on an alarm, no gold": {"on_alarm": "back", "blind": True},
    "stop on an alarm, no gold": {"on_alarm": "stop", "blind": True},
}
"""Name -> what differs from the run without guards."""
CHOSEN = (
    "none", "stop on an alarm", "back on an alarm", "KL 0.1, mean less deviation of 3, back",
    "stop on an alarm, no gold",
)  # fmt: skip
"""Of them those that are tried in all worlds; an ensemble where there is a reward model."""
WORLDS = ("noisy comparisons", "weak KL")
"""Those with a reward model: all means apply there."""


def judged(run: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What a run handed out, against the start of the run, and against the peak of the same run without guards.

    Args:
        run: as kept by `worlds.record`.
        plain: the run of the same world and seed without guards.
    """
    final = [row for row in run["evaluation"] if row["set"] == "final"]
    step = run["summary"]["model_step"]
    start, end = (means_of([row for row in final if row["step"] == at], "gold") for at in (0, step))
    gold = gold_of(plain)
    level = {at: fmean(means.values()) for at, means in gold.items()}
    first, last, peak = min(level), max(level), max(level, key=lambda at: level[at])
    found = difference(start, end) if step else None

    def rounded(*values: float) -> list[float]:
        return [round(value, 4) for value in values]

    return {
        "world": run["world"], "seed": run["seed"], "tag": run["tag"], "model_step": step, "ended": run["ended"],
        "gain": round(found.value, 4) if found else 0.0,
        "gain_ci": rounded(*found.interval) if found else [0.0, 0.0],
        "peak_gain": round(level[peak] - level[first], 4), "last_gain": round(level[last] - level[first], 4),
    }  # fmt: skip


def table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each world and guard."""
    head = ["world", "guard", "seeds", "gain of the model", "lowest", "seeds clearly below the start",
            "share of the peak's gain", "peak, and last weights, without guards"]  # fmt: skip
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["world"], line["guard"]), []).append(line)
    for (world, guard), runs in groups.items():
        gain, peak = (fmean(line[name] for line in runs) for name in ("gain", "peak_gain"))
        below = sum(line["gain_ci"][1] < 0 for line in runs)
        cells = [world, guard, str(len(runs)), f"{gain:+.2f}", f"{min(line['gain'] for line in runs):+.2f}", str(below)]
        last = fmean(line["last_gain"] for line in runs)
        cells += [f"{gain / peak:.0%}" if peak >= LEAST else "no gain", f"{peak:+.2f}, {last:+.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def save(path: Path, part: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Put the rows of a part into the file of figures."""
    both = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts = {name: ",\n".join(map(json.dumps, rows)) for name, rows in (both | {part: lines}).items()}
    text = ",\n".join(f'"{name}": [\n{rows}\n]' for name, rows in parts.items())
    path.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def main() -> int:
    """Make the runs that are missing, and print what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="directory of what was kept of the runs")
    parser.add_argument("--part", choices=("means", "worlds"), default="means")
    parser.add_argument("--seeds", default="")
    parser.add_argument("--guards", default="", help="names with semicolons between them; all of the part by default")
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    worlds = WORLDS if given.part == "means" else [world for world in REPORTED if world != "healthy"]
    guards = MEANS if given.part == "means" else {name: MEANS[name] for name in CHOSEN}
    if given.guards:
        guards = {name: MEANS[name] for name in given.guards.split(";")}
    seeds = given.seeds or ("0,1,2,3" if given.part == "means" else "0,1,2,3,4,5,6,7")
    lines: list[dict[str, Any]] = []
    order = [(world, guard) for world in worlds for guard in guards]
    for seed in map(int, seeds.split(",")):
        for world, guard in order:
            changed = guards[guard]
            plain = load(record(given.keep, world, "ppo", seed))
            tag = f"-{guard}".replace(",", "") if changed else ""
            run = load(record(given.keep, world, "ppo", seed, tag, **changed))
            lines.append({"guard": guard} | judged(run, plain))
            print(lines[-1], flush=True)
        lines.sort(key=lambda line: (order.index((line["world"], line["guard"])), line["seed"]))
        if given.save:  # after each seed, so that a study that is cut short is of whole seeds
            save(given.save, given.part, lines)
    print("\n".join(table(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
