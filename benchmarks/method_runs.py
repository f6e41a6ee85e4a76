"""One run of a method in the world of words: what it is worth after so much data, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import word_world as world
from torch import Tensor, nn
from word_world import Table

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.data.split import epoch_order
from plaudit.experience import Experience, Outputs, Pairs, Rankings
from plaudit.functional.best_of_n import expected_best
from plaudit.records import Rollout
from plaudit.rollouts.collect import scored
from plaudit.runtime import Runtime
from plaudit.training.online import OnlineLoop

Curve = list[tuple[float, float]]
"""Pairs of how much data was used, and what the model is worth."""
Worth = Callable[[Table], float]
RESPONSES, ITERATIONS = 64, 100
PAIRS, STEP_PAIRS = 5000, 50
EVERY = 5
"""Iterations (or steps) between points."""


def optimizer(lr: float) -> OptimizerSection:
    return OptimizerSection(lr=lr, schedule="linear", warmup_fraction=0.0)


def learner(module: nn.Module, lr: float, steps: int) -> LocalLearner:
    return LocalLearner(module, optimizer(lr), ComputeSection(device="cpu"), total_steps=steps)


def online(
    algorithm: Any, seed: int, worth: Worth, lr: float, responses: int = RESPONSES, iterations: int = ITERATIONS,
    each: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> Curve:  # fmt: skip
    """The loop that trains language models, on a table. ``each`` is given the metrics of each iteration."""
    table, critic = Table(world.START), Table(world.START)
    steps = iterations * algorithm.epochs * algorithm.minibatches
    runtime = Runtime(
        world.Writer(table),
        learner(table, lr, steps),
        LocalScorer(Table(world.START), ComputeSection(device="cpu")),
        world.reward,
        learner(critic, lr, steps) if "values" in algorithm.needs else None,
    )
    curve = [(0.0, worth(table))]

    def after(iteration: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        each(metrics)
        if iteration % EVERY == 0:
            curve.append((float(iteration * responses), worth(table)))

    prompts = [world.word_prompt(i) for i in range(responses)]
    OnlineLoop(
        algorithm, runtime, prompts, SamplingSection(max_new_tokens=world.LENGTH),
        responses // algorithm.group_size, world.PAD, seed, after,
    ).run(iterations)  # fmt: skip
    return curve


def drawn(law: Tensor, count: int, seed: int) -> Tensor:
    """So many rows of `world.WORDS`."""
    draw = torch.Generator().manual_seed(seed)
    return torch.multinomial(law, count, replacement=True, generator=draw)


def compared(seed: int, flipped: float = 0.0, pairs: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Rows of the chosen and rejected words of pairs that the reference wrote and Bradley-Terry annotators judged.

    Args:
        flipped: share of the labels that are turned round.
    """
    one, other = drawn(world.REFERENCE, 2 * pairs, seed).view(2, -1)
    gap = world.REWARDS[one] - world.REWARDS[other]
    draw = torch.Generator().manual_seed(seed + 1000)
    first = torch.rand(pairs, generator=draw) < gap.sigmoid()
    first ^= torch.rand(pairs, generator=draw) < flipped
    return torch.where(first, one, other), torch.where(first, other, one)


def pairs_of(chosen: Tensor, rejected: Tensor) -> Pairs:
    rows = torch.stack([chosen, rejected], -1).flatten()
    words, zeros = world.ALL.select(rows), torch.zeros(len(chosen))
    return Pairs(words.tokens, words.attention_mask, words.response_mask, zeros, zeros + 1)


def with_reference(batch: Any) -> Any:
    """The batch with the reference's log-probs; for thumbs the zero point is filled in by `thumbs_step`."""
    with torch.no_grad():
        return batch.replace(ref_logprobs=Table(world.START)(batch).logprobs)


def offline(
    algorithm: Any, seed: int, worth: Worth, lr: float, flipped: float = 0.0, pairs: int = PAIRS
) -> Curve:
    """Once through the preferences; KTO reads both responses of a pair as a thumb up and a thumb down."""
    table = Table(world.START)
    steps = pairs // STEP_PAIRS
    its = learner(table, lr, steps)
    chosen, rejected = compared(seed, flipped, pairs)
    curve = [(0.0, worth(table))]
    for step in range(steps):
        part = slice(step * STEP_PAIRS, (step + 1) * STEP_PAIRS)
        batch: Any = with_reference(pairs_of(chosen[part], rejected[part]))
        if isinstance(algorithm, KTO):
            batch = thumbs(batch, table)
        its.update(algorithm.weights(batch), algorithm.loss)
        if (step + 1) % EVERY == 0:
            curve.append((float((step + 1) * STEP_PAIRS), worth(table)))
    return curve


def thumbs(batch: Pairs, table: Table) -> Experience:
    """Rated words, and the zero point: all prompts are alike, so the responses themselves are the mismatched ones."""
    rated = Experience(
        batch.tokens, batch.attention_mask, batch.response_mask, rewards=batch.best_rows.float(),
        ref_logprobs=batch.ref_logprobs,
    )  # fmt: skip
    with torch.no_grad():
        gap = table(rated).logprobs.sum(-1) - rated.ref_logprobs.sum(-1)
    return rated.replace(mismatched_kl=gap.mean().clamp(min=0).expand(len(rated)))


def imitation(seed: int, lr: float, law: Tensor = world.OPTIMUM) -> Curve:
    """SFT on samples of a known distribution: KL of that to the model; 0 is the best."""
    table = Table(world.START)
    steps = PAIRS // STEP_PAIRS
    its, rows = learner(table, lr, steps), drawn(law, PAIRS, seed)

    def distance() -> float:
        return float((law * (law / world.law(table)).log()).sum())

    curve = [(0.0, distance())]
    for step in range(steps):
        batch = world.ALL.select(rows[step * STEP_PAIRS : (step + 1) * STEP_PAIRS])
        its.update(SFT().weights(batch), SFT().loss)
        if (step + 1) % EVERY == 0:
            curve.append((float((step + 1) * STEP_PAIRS), distance()))
    return curve


class Scores(nn.Module):
    """A reward model that is a table: one score a word."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(len(world.WORDS)))
        self.row = {tuple(ids): i for i, ids in enumerate(world.WORDS)}

    def forward(self, batch: Any) -> Outputs:
        words = [tuple(i for i in row[1:].tolist() if i != world.PAD) for row in batch.tokens]
        return Outputs(scores=self.scores[[self.row[w] for w in words]])


def ranked_right(scores: Tensor) -> float:
    """Share of pairs that the reference writes, of different reward, whose better word scores higher; ties 1/2."""
    better = world.REWARDS[:, None] > world.REWARDS[None, :]
    weights = world.REFERENCE[:, None] * world.REFERENCE[None, :] * better
    gap = scores[:, None] - scores[None, :]
    return float((weights * ((gap > 0) + 0.5 * (gap == 0))).sum() / weights.sum())


def reward_model(algorithm: Any, seed: int, lr: float, kind: str, flipped: float = 0.0) -> Curve:
    """Pairs, rankings of four, or ratings with noise; the same number of words is read in each."""
    model = Scores()
    read = 2 * STEP_PAIRS
    steps = 2 * PAIRS // read
    its = learner(model, lr, steps, "scores")
    make = {"pairs": _some_pairs, "rankings": _some_rankings, "ratings": _some_ratings}[kind](seed, flipped)
    curve = [(0.0, 0.5)]
    for step in range(steps):
        batch = make(step, read)
        its.update(algorithm.weights(batch), algorithm.loss)
        if (step + 1) % EVERY == 0:
            curve.append((float((step + 1) * read), ranked_right(model.scores.detach())))
    return curve


def _some_pairs(seed: int, flipped: float) -> Callable[[int, int], Pairs]:
    chosen, rejected = compared(seed, flipped)

    def make(step: int, read: int) -> Pairs:
        part = slice(step * read // 2, (step + 1) * read // 2)
        return pairs_of(chosen[part], rejected[part])

    return make


def _some_rankings(seed: int, flipped: float) -> Callable[[int, int], Rankings]:
    """Lists of four, ordered by reward plus Gumbel noise: the law of Plackett and Luce."""
    rows = drawn(world.REFERENCE, 2 * PAIRS, seed)
    draw = torch.Generator().manual_seed(seed + 1000)
    noise = -(-torch.rand(2 * PAIRS, generator=draw).clamp(min=1e-9).log()).log()
    felt = world.REWARDS[rows] + noise

    def make(step: int, read: int) -> Rankings:
        part = slice(step * read, (step + 1) * read)
        words = world.ALL.select(rows[part])
        ranks = 1 + felt[part].view(-1, 4).argsort(-1, descending=True).argsort(-1).flatten()
        sizes = torch.full((read // 4,), 4)
        return Rankings(words.tokens, words.attention_mask, words.response_mask, ranks.float(), sizes)

    return make


def _some_ratings(seed: int, flipped: float) -> Callable[[int, int], Experience]:
    """The reward with logistic noise, standardised."""
    rows = drawn(world.REFERENCE, 2 * PAIRS, seed)
    u = torch.rand(2 * PAIRS, generator=torch.Generator().manual_seed(seed + 1000)).clamp(1e-6, 1 - 1e-6)
    ratings = world.REWARDS[rows] + u.logit()
    ratings = (ratings - ratings.mean()) / ratings.std()

    def make(step: int, read: int) -> Experience:
        part = slice(step * read, (step + 1) * read)
        return world.ALL.select(rows[part]).replace(rewards=ratings[part])

    return make


def best_of(seed: int, samples: int = 64) -> Curve:
    """The curve over n that one set of samples gives."""
    found = world.REWARDS[drawn(world.REFERENCE, samples, seed)].tolist()
    return [(float(n), expected_best(found, n)) for n in (1, 2, 4, 8, 16, 32)]


def exact_best_of() -> Curve:
    """The same from the law: the distribution function of the reward, to the n."""
    values, index = world.REWARDS.unique(return_inverse=True)
    below = torch.zeros(len(values), dtype=torch.float64).index_add(0, index, world.REFERENCE).cumsum(0)
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), below])
    curve = []
    for n in (1, 2, 4, 8, 16, 32):
        of_value = torch.tensor([float(b**n - a**n) for a, b in pairwise(whole)])
        curve.append((float(n), float((of_value * values).sum())))
    return curve


def rejection(
    algorithm: BestOfN, seed: int, lr: float, rounds: int = 6, prompts: int = 64, worth: Worth = world.expected_reward
) -> Curve:  # fmt: skip
    """Rounds of sampling, keeping the best, and imitating them: what the policy is worth after each."""
    table = Table(world.START)
    kept: list[Rollout] = []
    curve = [(0.0, worth(table))]
    # What is kept is told apart by the prompt's tokens.
    asked = [world.word_prompt(i, world.PROMPT + 1 + i) for i in range(prompts)]
    for round_ in range(1, rounds + 1):
        settings = SamplingSection(max_new_tokens=world.LENGTH)
        sampled = world.Writer(table).generate(
            asked, algorithm.group_size, settings, seed=seed, iteration=round_
        )
        groups: dict[int, list[Rollout]] = {}
        for rollout in scored(world.reward, sampled):
            groups.setdefault(rollout.group_id, []).append(rollout)
        kept = algorithm.pool(kept, [r for group in groups.values() for r in algorithm.keep(group)])
        if algorithm.start_from == "base":
            table = Table(world.START)
        imitate(table, [r.response_ids for r in kept], lr, seed * 100 + round_)
        curve.append((float(round_), worth(table)))
    return curve


def imitate(table: Table, responses: Sequence[Sequence[int]], lr: float, seed: int, epochs: int = 2) -> None:
    """SFT on these, in steps of 16."""
    batch, parts = world.batch_of(responses), max(1, len(responses) // 16)
    its = learner(table, lr, epochs * parts)
    for epoch in range(epochs):
        order = torch.tensor(epoch_order(len(batch), seed, epoch))
        for rows in order.tensor_split(parts):
            its.update(SFT().weights(batch.select(rows)), SFT().loss)
