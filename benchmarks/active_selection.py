"""How many labels does active selection save against random? On simulated annotators, where the truth is known.

    python benchmarks/active_selection.py [--seeds 8] [--out docs/images/active.png]

Pairs of short reviews are labelled one batch at a time by simulated annotators with noise. After each batch a
linear Bradley-Terry reward model on unsupervised features is fitted, and its accuracy against the true preference is
measured on held-out prompts. Strategies differ in which batch they ask for; everything else is the same:
pool, labels (a pair has the same label whoever asks), start, held-out pairs. Prints the table of
docs/howto/active.md, and draws its figure. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from plaudit.demo import reviews
from plaudit.loop.simulated import SimulatedAnnotator
from plaudit.preferences.sampling import disagreement, diverse_best, small_margin
from plaudit.statistics.resampling import uniform

Array = NDArray[np.float64]
POOL, HELDOUT, START, BATCH, LAST = 6000, 4000, 50, 25, 800
MEMBERS, STEEP, TOPICS, TARGET = 5, 3.0, 30, 400
WORDS = re.compile(r"[A-Za-z]+|[.,!?:]")


@dataclass(frozen=True)
class World:
    """One seed's pool and held-out pairs. Labels and truths are 1 where the first response is better."""

    pool: Array
    labels: Array
    heldout: Array
    truth: Array


class Reader:
    """Features of (prompt, response), learned from texts without labels, as a pretrained model brings them.

    TOPICS dimensions of latent semantics of the response, how well its words go with those of the prompt
    (pointwise mutual information), and its length, sentences, repetitions and end.
    """

    def __init__(self, texts: list[tuple[str, str]]) -> None:
        names = sorted({word.lower() for word in reviews.vocabulary()})
        self.words = {w: i for i, w in enumerate(dict.fromkeys(p for n in names for p in WORDS.findall(n)))}
        said = np.array([self.counts(response) for _, response in texts])
        asked = np.array([self.counts(prompt) for prompt, _ in texts])
        logs = np.log1p(said)
        self.mean, self.spread = logs.mean(0), logs.std(0) + 0.02
        *_, basis = np.linalg.svd((logs - self.mean) / self.spread, full_matrices=False)
        self.basis = basis[:TOPICS].T
        there, wanted = (said > 0).astype(np.float64), (asked > 0).astype(np.float64)
        joint = (wanted.T @ there + 0.5) / len(texts)
        self.fit = np.log(joint / np.outer(wanted.mean(0) + 1 / len(texts), there.mean(0) + 1 / len(texts)))

    def counts(self, text: str) -> Array:
        """Occurrences of each known word."""
        found = np.zeros(len(self.words))
        for word in WORDS.findall(text.lower()):
            if word in self.words:
                found[self.words[word]] += 1
        return found

    def read(self, prompt: str, response: str) -> Array:
        """All features of one response."""
        said, asked = self.counts(response), self.counts(prompt)
        topics = ((np.log1p(said) - self.mean) / self.spread) @ self.basis
        fits = self.fit[np.ix_(np.flatnonzero(asked), np.flatnonzero(said))]
        worst, best = fits.min(0, initial=0.0), fits.max(0, initial=0.0)
        sentences = [part for part in re.split(r"[.!?]", response) if part.strip()]
        words = WORDS.findall(response.lower())
        form = [
            len(words),
            len(sentences),
            len(sentences) - len(set(sentences)),
            len(set(words)) / max(1, len(words)),
            len({w for w in words if len(w) > 3 and words.count(w) > 1}),
            float(response.rstrip().endswith((".", "!"))),
            len(set(words) & set(WORDS.findall(prompt.lower()))),
        ]
        return np.concatenate(
            [topics, [(worst < -1.5).sum(), worst.sum(), best.sum(), (best > 1).sum()], form]
        )

    def differences(self, pairs: list[tuple[str, str, str]]) -> Array:
        """[pairs, features]: response a minus response b."""
        return np.array([self.read(p, a) - self.read(p, b) for p, a, b in pairs])


def world(seed: int, noise: tuple[float, float]) -> World:
    """Pairs, features and labels of one seed; ``noise`` is error rate and temperature of the annotators."""
    pool = reviews.sample_pairs(POOL, seed)
    heldout = reviews.sample_pairs(HELDOUT, seed, split="heldout")
    reader = Reader([(p, text) for p, *both in pool for text in both])
    inside, outside = reader.differences(pool), reader.differences(heldout)
    scale = inside.std(0) + 1e-9
    annotator = SimulatedAnnotator("annotator", *noise)
    labels = [
        annotator.judge(*pair, reviews.true_score, seed=seed, index=i).strength < 0
        for i, pair in enumerate(pool)
    ]
    truth = [np.sign(reviews.true_score(p, a) - reviews.true_score(p, b)) for p, a, b in heldout]
    return World(
        inside / scale,
        np.array(labels, dtype=np.float64),
        outside / scale,
        np.array(truth),
    )


def fit(x: Array, y: Array, weights: Array, start: Array) -> Array:
    """A linear Bradley-Terry model with a Gaussian prior of precision ``STEEP`` on its weights."""

    def loss(w: Array) -> tuple[float, Array]:
        z = x @ w
        value = (weights * (np.logaddexp(0, z) - y * z)).sum() + STEEP / 2 * w @ w
        return float(value), x.T @ (weights * (expit(z) - y)) + STEEP * w

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x)


class Ensemble:
    """Models of bootstrapped labels (exponential weights: the Bayesian bootstrap, Rubin 1981)."""

    def __init__(self, size: int, seed: int) -> None:
        self.seed = seed
        self.members = np.zeros((MEMBERS, size))

    def differences(self, one: World, asked: list[int], pool: Array) -> Array:
        """[members, pairs] after a fit to what was asked."""
        for m in range(MEMBERS):
            weights = np.array([-np.log1p(-uniform(self.seed, "weight", m, i)) for i in asked])
            self.members[m] = fit(one.pool[asked], one.labels[asked], weights, self.members[m])
        return np.asarray(self.members @ pool.T)


Chooser = Callable[[World, list[int], list[int], Array, Ensemble, int], list[int]]


def at_random(one: World, asked: list[int], left: list[int], w: Array, e: Ensemble, seed: int) -> list[int]:
    return sorted(left, key=lambda i: uniform(seed, "random", i))[:BATCH]


def by_margin(one: World, asked: list[int], left: list[int], w: Array, e: Ensemble, seed: int) -> list[int]:
    unsure = small_margin(one.pool[left] @ w)
    return [left[i] for i in np.argsort(-unsure, kind="stable")[:BATCH]]


def by_disagreement(
    one: World, asked: list[int], left: list[int], w: Array, e: Ensemble, seed: int
) -> list[int]:
    split = disagreement(e.differences(one, asked, one.pool[left]))
    return [left[i] for i in np.argsort(-split, kind="stable")[:BATCH]]


def by_disagreement_and_diversity(
    one: World, asked: list[int], left: list[int], w: Array, e: Ensemble, seed: int
) -> list[int]:
    split = disagreement(e.differences(one, asked, one.pool[left]))
    return [left[i] for i in diverse_best(split, one.pool[left], BATCH, seed=seed)]


STRATEGIES: dict[str, Chooser] = {
    "random": at_random,
    "small margin": by_margin,
    "disagreement": by_disagreement,
    "disagreement, diverse": by_disagreement_and_diversity,
}


def curve(one: World, choose: Chooser, seed: int) -> list[float]:
    """Held-out accuracy after START, START + BATCH ... LAST labels."""
    asked = sorted(range(POOL), key=lambda i: uniform(seed, "start", i))[:START]
    ensemble = Ensemble(one.pool.shape[1], seed)
    w = np.zeros(one.pool.shape[1])
    found = []
    while True:
        w = fit(one.pool[asked], one.labels[asked], np.ones(len(asked)), w)
        found.append(float((1 + np.sign(one.heldout @ w) * one.truth).mean() / 2))
        if len(asked) >= LAST:
            return found
        known = set(asked)
        left = [i for i in range(POOL) if i not in known]
        asked = asked + choose(one, asked, left, w, ensemble, seed)


def labels_for(accuracy: float, curve_: Array, sizes: Array) -> float:
    """Labels after which the curve stays at or above an accuracy, between points; NaN if it never does."""
    below = np.flatnonzero(curve_ < accuracy)
    if len(below) == 0:
        return float(sizes[0])
    i = int(below[-1])
    if i == len(sizes) - 1:
        return float("nan")
    share = (accuracy - curve_[i]) / (curve_[i + 1] - curve_[i])
    return float(sizes[i] + share * (sizes[i + 1] - sizes[i]))


def table(curves: dict[str, Array], sizes: Array) -> str:
    """Labels each strategy needs for the mean accuracy that random reaches with TARGET labels."""
    mean = {name: found.mean(0) for name, found in curves.items()}
    rng = np.random.default_rng(0)
    seeds = len(curves["random"])
    again = [rng.integers(seeds, size=seeds) for _ in range(2000)]
    lines = [
        "| strategy | accuracy at 100 | at 200 | at 400 | at 800 | labels for random's accuracy at 400 | saved, 95 % |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    at = [int(np.flatnonzero(sizes == n)[0]) for n in (100, 200, TARGET, 800)]
    for name, found in curves.items():
        cells = [f"{mean[name][i]:.3f} ± {found[:, i].std(ddof=1) / seeds**0.5:.3f}" for i in at]
        target = float(mean["random"][at[2]])
        needed = labels_for(target, mean[name], sizes)
        draws = []
        for rows in again:
            goal = float(curves["random"][rows].mean(0)[at[2]])
            draws.append(1 - labels_for(goal, found[rows].mean(0), sizes) / TARGET)
        low, high = np.nanquantile(draws, [0.025, 0.975])
        saved = "" if name == "random" else f"{1 - needed / TARGET:.0%} [{low:.0%}, {high:.0%}]"
        lines.append(f"| {name} | {' | '.join(cells)} | {needed:.0f} | {saved} |")
    return "\n".join(lines)


def draw(panels: dict[str, dict[str, Array]], sizes: Array, path: Path) -> None:
    """Mean accuracy by labels with a band of one standard error, a panel for each kind of annotator."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.0), sharey=True, squeeze=False)
    colours = ("#7a7a7a", "#d98b2b", "#2b6cb0", "#2f855a")
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for colour, (name, found) in zip(colours, curves.items(), strict=True):
            mean, error = found.mean(0), found.std(0, ddof=1) / len(found) ** 0.5
            axis.plot(sizes, mean, label=name, color=colour, linewidth=1.8)
            axis.fill_between(sizes, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("labels")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("held-out accuracy against the true preference")
    axes[0][0].legend(frameon=False, fontsize=9, loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


ANNOTATORS = {
    "careful annotators (5 % errors)": (0.05, 0.1),
    "ordinary annotators (15 % errors, unsure of small differences)": (0.15, 0.5),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/images/active.png"))
    parser.add_argument("--curves", type=Path, default=None, help="write every curve here, as JSON")
    given = parser.parse_args()
    sizes = np.arange(START, LAST + 1, BATCH, dtype=np.float64)
    panels: dict[str, dict[str, Array]] = {}
    for title, noise in ANNOTATORS.items():
        curves: dict[str, list[list[float]]] = {name: [] for name in STRATEGIES}
        for seed in range(given.seeds):
            one = world(seed, noise)
            for name, choose in STRATEGIES.items():
                began = time.perf_counter()
                curves[name].append(curve(one, choose, seed))
                seconds = time.perf_counter() - began
                print(f"{title} · seed {seed} · {name} · {seconds:.0f} s", file=sys.stderr)
        panels[title] = {name: np.array(found) for name, found in curves.items()}
        print(f"\n{title}; label noise included\n\n{table(panels[title], sizes)}", flush=True)
    draw(panels, sizes, given.out)
    if given.curves:
        kept = {title: {n: f.tolist() for n, f in curves.items()} for title, curves in panels.items()}
        given.curves.write_text(json.dumps({"labels": sizes.tolist(), "accuracy": kept}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
