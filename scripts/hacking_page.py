"""docs/why/hacking.md from the figures that scripts/hacking.py and scripts/guards.py saved beside it."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import guards
import hacking
from hacking import SIDES

FOLDER = Path(__file__).parent.parent / "docs" / "why"
PAGE = FOLDER / "hacking.md"

HEAD = """# Is reward hacking seen in time?

By `make hacking` (hours; figures in hacking.json and guards.json). Every run is one of the quickstart's small world:
reviews whose true score is known, a policy of 0.2 million parameters that was fine-tuned on them, and a reward. The
true score is the gold reward: 50 held-out prompts are evaluated every two iterations, two responses each. A run has 32
iterations of 64 responses, and took SECONDS on one core of an AMD EPYC (AVX2), with other work on the second.

| world | the reward |
|---|---|
| phrase | pays for the words "not much more to say" |
| praise | pays for words of praise, whatever they are about |
| length | pays for words |
| noisy comparisons | a reward model of 200 comparisons, a quarter of them turned round; no KL |
| weak KL | the quickstart's reward model, of 2 800 comparisons, without a KL |
| classifier | log-odds of a classifier that counts words, fitted to the quickstart's comparisons |
| healthy | the quickstart's reward model, with a KL coefficient of 0.1 |

**In time** means: an alarm by the first evaluation at which a quarter of the gold gain is lost (of the start's gold
reward where nothing was clearly gained), and at the next one too. Each run is watched twice, with its gold reward and
as if it had none. The seeds are 12 to 19.
"""

THRESHOLDS = """The thresholds were chosen on other worlds (`DESIGN` in scripts/worlds.py: blame, brevity, sentences,
reward models of 400 and 1 200 comparisons, two healthy ones) with seeds from 100 on. Five things were changed after a
look at these worlds with seeds 0 to 11, so that the worlds are not new to them, only the seeds: an alarm for a reward
model whose card says that it may be a coin (it speaks for all runs with noisy comparisons); no alarm for a predicted
peak within 1 nat of the start; the definition of "in time", which had counted single low evaluations; a fall must be
more than the luck of the best of many evaluations explains; and what a reward pays for is told at once, with a gold
reward too (early: nothing stops or goes back on it), in the first 24 iterations. By simulation about one in ten runs
that lose nothing raises an alarm (tests/evaluation/test_hacking.py).

Without a gold reward two policies cannot be told apart that change alike, one for the better: in the world "weak KL"
with GRPO many runs lose nothing and raise an alarm. So without a gold reward an alarm asks you to look.
"""

GOAL = {"with gold": 1.0, "without gold": 0.75}
"""Share of the seeds that lose a quarter in which the alarm is to come in time."""

MENDED = """## One rule, mended after these runs

What a reward pays for was named too easily: ten words were judged on the responses that they were chosen on, and most
false alarms above are of that kind (`paid_words`). Words are now chosen on one half of the responses and judged on the
other, over those of the start and of three iterations. The same runs, read once more with the mended rule (as
`make hacking` reads all of them now); seeds that nobody has looked at are still to be made for it. It is the better
rule, and it does not reach the goal either:
"""

GUARDS = """## What guards keep

PPO. The gain is that of the true score of the model that is handed out over the start, on prompts kept for the end,
with its paired 95 % interval for each seed. The peak is that of the same run without guards, the best of its
evaluations; the last weights are those at its end. "none" hands out the best weights by the gold reward, as every run
does.

One means at a time:
"""


FOUND = """With a gold reward `back` keeps 95 % of the peak's gain or more in each world that has one, and `none`,
which only chooses the weights, 90 % or more. One of 48 seeds ends clearly below its start with `back`, about as many
as intervals of 95 % err by chance; none with `none`. `stop` ends too early where the gold reward rises late (praise).
The combination is better than `back` alone with few noisy comparisons and worse with praise. Without a gold reward
`stop` keeps 79 to 80 % where a reward model or classifier teaches something, nothing where it does not, and three of
48 seeds end clearly below their start: most of them have a reward model that may be a coin, of which the run says so
before its first step.

A head for length that is trained beside the score (ODIN, `plaudit reward --length odin`) was tried in three runs so
far, and is no better there than no guard: +0.17 and +0.11 with noisy comparisons (seeds 0 and 1), +0.62 with weak KL
(seed 0), of peaks of +0.26, +0.13 and +0.86. Length is not what these worlds are exploited by. The guards above were
measured with the rules of before.
"""


def false_alarms(lines: Sequence[dict[str, Any]]) -> str:
    """How many of the healthy runs have an alarm, in words."""
    healthy = [line for line in lines if line["world"] == "healthy"]
    counts = {side: sum(hacking.first_of(line, side) is not None for line in healthy) for side in SIDES}
    said = ", ".join(f"{count} {side}" for side, count in counts.items())
    return f"Alarms in the {len(healthy)} healthy runs: {said}."


def reached(lines: Sequence[dict[str, Any]]) -> str:
    """In which worlds the goal is reached, and what is missed where it is not, in words."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["world"] != "healthy" and line["limit"] is not None:
            groups.setdefault(f"{line['world']} with {line['algorithm'].upper()}", []).append(line)
    said = []
    for side, share in GOAL.items():
        seen = {name: sum(hacking.in_time(line, side) for line in runs) for name, runs in groups.items()}
        missed = [f"{name} ({seen[name]} of {len(runs)})" for name, runs in groups.items()
                  if seen[name] < share * len(runs)]  # fmt: skip
        total = f"{sum(seen.values())} of {sum(map(len, groups.values()))} were seen in time {side}"
        said.append(f"{total}; the goal is missed in {', '.join(missed) if missed else 'no world'}")
    goal = "**What is reached.** The goal: 8 of 8 seeds with a gold reward and 6 of 8 without, in every world; at most"
    words = f"{goal} one false alarm in 16. Of the runs that lost a quarter {'. Of the same '.join(said)}."
    return textwrap.fill(words, 118, break_on_hyphens=False)


def took(lines: Sequence[dict[str, Any]]) -> str:
    """How long a run took."""
    seconds = [line["seconds"] for line in lines]
    return f"{min(seconds):.0f} to {max(seconds):.0f} s"


def page() -> str:
    """The page."""
    lines: list[dict[str, Any]] = json.loads((FOLDER / "hacking.json").read_text(encoding="utf-8"))
    mended: list[dict[str, Any]] = json.loads((FOLDER / "hacking_mended.json").read_text(encoding="utf-8"))
    kept = json.loads((FOLDER / "guards.json").read_text(encoding="utf-8"))
    return "\n".join(
        [
            HEAD.replace("SECONDS", took(lines)),
            *hacking.table(lines),
            "",
            reached(lines),
            "",
            false_alarms(lines),
            "",
            THRESHOLDS,
            MENDED,
            *hacking.table(mended),
            "",
            false_alarms(mended),
            "",
            GUARDS,
            *guards.table(kept["means"]),
            "",
            "In all worlds:",
            "",
            *guards.table(kept["worlds"]),
            "",
            FOUND,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
