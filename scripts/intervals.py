"""How often do the intervals hold the truth, and how often is a run without effect called better? By simulation.

python scripts/intervals.py            writes docs/why/intervals.md (about two minutes)
python scripts/intervals.py --quick    a short look, on the console

The functions are those that every page uses (`plaudit.statistics.clustered`, `plaudit.evaluation.choice`); only the
responses are made up: a prompt has a level of its own, a response departs from it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plaudit.evaluation.choice import ENOUGH, HINTED, clearly, difference
from plaudit.statistics.clustered import difference_of_shares, mean_over, outcomes, share
from plaudit.statistics.wins import length_controlled

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why" / "intervals.md"
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy tails (t with 3 degrees)": lambda rng, shape: rng.standard_t(3, size=shape),
}
"""Distributions with mean 0, of prompts and of the responses to one."""
PROMPTS, SAMPLES = (10, 16, 32, 64), (1, 4)


def responses(rng: np.random.Generator, kind: str, prompts: int, samples: int) -> Floats:
    """Scores ``[prompts, samples]`` with a true mean of 0; of the kind "binary" 0 or 1, less their true mean of 1/3."""
    if kind == "binary":
        chance = rng.beta(1, 2, size=(prompts, 1))
        return (rng.random((prompts, samples)) < chance).astype(np.float64) - 1 / 3
    return NOISE[kind](rng, (prompts, 1)) + NOISE[kind](rng, (prompts, samples))


def coverage(kind: str, prompts: int, samples: int, runs: int) -> float:
    """Share of the 95 % intervals of a mean that hold the true one."""
    rng = np.random.default_rng([prompts, samples, len(kind)])
    names = np.repeat(np.arange(prompts), samples).tolist()
    found = [mean_over(responses(rng, kind, prompts, samples).ravel(), names) for _ in range(runs)]
    return float(np.mean([estimate.low <= 0 <= estimate.high for estimate in found]))


def win_coverage(prompts: int, samples: int, runs: int) -> float:
    """The same for a win rate that is 1/2: all pairs of an earlier and a later response to a prompt."""
    rng = np.random.default_rng([prompts, samples])
    names = np.repeat(np.arange(prompts), samples**2).tolist()
    held = 0
    for _ in range(runs):
        shift = rng.normal(size=(prompts, 1, 1))  # one prompt is answered better, another worse
        gaps = shift + rng.normal(size=(prompts, samples, 1)) - rng.normal(size=(prompts, 1, samples))
        estimate = share(outcomes(gaps.ravel()), names)
        held += estimate.low <= 0.5 <= estimate.high
    return held / runs


def length_coverage(prompts: int, samples: int, runs: int) -> float:
    """The same for the win rate at equal length, of a policy that writes longer before a judge who likes that."""
    rng = np.random.default_rng([prompts, samples, 1])
    names = np.repeat(np.arange(prompts), samples).tolist()
    truth = float((1 / (1 + np.exp(-(0.4 + 0.7 * rng.normal(size=200_000))))).mean())
    held = 0
    for _ in range(runs):
        longer = rng.normal(4, 8, size=(prompts, samples))
        logit = 0.4 + np.tanh(longer / 8) + 0.7 * rng.normal(size=(prompts, 1))
        won = (rng.random((prompts, samples)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
        estimate = length_controlled(won.ravel(), longer.ravel(), names)
        held += estimate.low <= truth <= estimate.high
    return held / runs


def change_coverage(prompts: int, samples: int, runs: int) -> float:
    """The same for the change of a share from 0.1 to 0.3 on the same prompts."""
    rng = np.random.default_rng([prompts, samples, 2])
    names = np.repeat(np.arange(prompts), samples).tolist()
    held = 0
    for _ in range(runs):
        # Both sides share what makes a prompt hard: an event where prompt and response together are above a limit.
        level = rng.normal(size=(prompts, 1))
        was, now = (
            (level + rng.normal(size=(prompts, samples)) > limit).astype(np.float64) for limit in (1.8124, 0.7416)
        )
        estimate = difference_of_shares(was.ravel(), now.ravel(), names, names)
        held += estimate.low <= 0.2 <= estimate.high
    return held / runs


def decided(truth: Sequence[float], prompts: int, rng: np.random.Generator) -> tuple[str, int]:
    """The verdict on a run and the step that is handed out, as `plaudit.stages.online.evaluation` finds them.

    Args:
        truth: the true mean of the policy at each evaluation, the start first.
        prompts: on each of the two sides.
    """
    levels = {side: rng.normal(size=prompts) for side in ("selection", "final")}

    def sampled(side: str, step: int, samples: int) -> dict[str, float]:
        noise = rng.normal(size=(prompts, samples)).mean(1)
        return {str(p): float(truth[step] + levels[side][p] + noise[p]) for p in range(prompts)}

    start = sampled("final", 0, 4)
    watched = [sampled("selection", step, 2) for step in range(len(truth))]
    best, last = int(np.argmax([np.mean(list(each.values())) for each in watched])), len(truth) - 1
    kept = last
    hinted = best != last and difference(watched[last], watched[best], HINTED).low > 0
    if hinted and clearly(difference(sampled("selection", last, 4), sampled("selection", best, 4))):
        kept = best
    if kept == 0:
        return "no_change", 0
    found = difference(start, sampled("final", kept, 4))
    if prompts < ENOUGH:
        return "too_few", kept
    return ("better" if found.low > 0 else "worse" if found.high < 0 else "no_change"), kept


def decisions(truth: Sequence[float], prompts: int, runs: int) -> dict[str, float]:
    """Shares of runs: called better, called worse, and put back to an earlier step."""
    rng = np.random.default_rng([prompts, len(truth)])
    found = [decided(truth, prompts, rng) for _ in range(runs)]
    verdicts = {word: float(np.mean([word == verdict for verdict, _ in found])) for word in ("better", "worse")}
    return verdicts | {"put back": float(np.mean([kept != len(truth) - 1 for _, kept in found]))}


def curve(peak: float, end: float, evaluations: int = 14) -> list[float]:
    """A true mean that rises to ``peak`` in the middle of a run and is ``end`` at its end; 0 at the start."""
    half = evaluations // 2
    return [peak * i / half for i in range(half)] + [
        peak + (end - peak) * i / (evaluations - half) for i in range(evaluations - half + 1)
    ]


CURVES = {
    "no effect": [0.0] * 15,
    "healthy: rises to +0.5": curve(0.4, 0.5),
    "a lost peak: +1.0, ends at +0.5": curve(1.0, 0.5),
    "over-optimised: +0.3, ends at -0.6": curve(0.3, -0.6),
}


def page(runs: int) -> str:
    """The page, from new simulations."""
    lines = [
        "# Intervals, and who chooses",
        "",
        f"By `python scripts/intervals.py` (`make intervals`), {runs} simulated evaluations in each cell. A",
        "prompt has a level of its own and a response departs from it, both by the distribution that is",
        "named.",
        "",
        "## Coverage",
        "",
        "Share of the 95 % intervals of a mean over prompts that hold the true mean. Student's interval over",
        "prompts is used and not the bootstrap of percentiles, which held it in 88 to 92 % of the cases with",
        "10 prompts. Runs take four responses to a prompt; of a reward of 0 or 1, one response is too few",
        "with 10 prompts.",
        "",
        f"| distribution | samples a prompt | {' | '.join(f'{n} prompts' for n in PROMPTS)} |",
        "|---|---|" + "---|" * len(PROMPTS),
    ]
    for kind in (*NOISE, "binary"):
        for samples in SAMPLES:
            cells = [f"{100 * coverage(kind, n, samples, runs):.1f} %" for n in PROMPTS]
            lines.append(f"| {kind} | {samples} | {' | '.join(cells)} |")
    for samples in SAMPLES:
        cells = [f"{100 * win_coverage(n, samples, runs):.1f} %" for n in PROMPTS]
        lines.append(f"| win rate of 1/2, all pairs | {samples} | {' | '.join(cells)} |")
    for name, covers in (("win rate at equal length", length_coverage), ("change of a share", change_coverage)):
        for samples in SAMPLES:
            cells = [f"{100 * covers(n, samples, runs):.1f} %" for n in PROMPTS]
            lines.append(f"| {name} | {samples} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Below {ENOUGH} prompts the verdict is that there are too few to say.",
        "",
        "## The whole decision",
        "",
        "Held-out prompts are divided. By one half weights are chosen: two responses a prompt at each of 15",
        "evaluations. If the best evaluation is above the last one with a 60 % interval, both are sampled anew,",
        "four responses a prompt, and the best weights are handed out only where the 95 % interval of the",
        "difference lies above 0.",
        "The other half is sampled at the start and at the end and decides the headline. In units of the",
        "spread of responses:",
        "",
        "| true course of the run | prompts on each side | called better | called worse | put back |",
        "|---|---|---|---|---|",
    ]
    for name, truth in CURVES.items():
        for prompts in (10, 32, 100):
            found = decisions(truth, prompts, runs)
            cells = " | ".join(f"{100 * found[word]:.1f} %" for word in ("better", "worse", "put back"))
            lines.append(f"| {name} | {prompts} | {cells} |")
    lines += [
        "",
        "The rows that judge took no part in the choice, so what was chosen and put back before cannot",
        "flatter them: a run without effect is called better as often as an interval of 95 % errs on one",
        "side, 2.5 %. In the first release the best of 14 evaluations was chosen and judged on the same rows.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--quick" in sys.argv:
        print(page(200))
    else:
        PAGE.write_text(page(3000), encoding="utf-8")
        print(PAGE)
