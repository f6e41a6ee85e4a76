"""Signals of a batch: only those asked for; values after the last token; texts beside the rollouts."""

from types import SimpleNamespace

import pytest
import torch

from plaudit.algorithms.metrics import law_metrics
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.data.chat import Encoded
from plaudit.experience import Experience, Loss
from plaudit.models.critic import Critic
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.training.offline import TextStream
from plaudit.training.signals import fill_signals, values_to_the_end

OLD = frozenset({"old_logprobs"})
ROWS = [[2, 9, 11, 8, 10, 3], [2, 12, 9, 3], [2, 8, 8, 9, 13]]


def batch(rows=ROWS, prompt=2):
    width = max(map(len, rows))
    tokens, real = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.zeros(len(rows), width, dtype=torch.bool),
    )
    for b, ids in enumerate(rows):
        tokens[b, : len(ids)], real[b, : len(ids)] = torch.tensor(ids), True
    return Experience(tokens, real, real & (torch.arange(width) >= prompt))


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_values_after_the_last_token(arch):
    critic = Critic.from_policy(
        tiny_lm(arch, tiny_tokenizer(["a b c d e f g h"], 64), hidden=16, layers=1, scale=0.5)
    )
    torch.manual_seed(0)
    torch.nn.init.normal_(critic.head.weight)
    scorer = LocalScorer(critic, ComputeSection(tokens_per_microbatch=16))
    values, last = values_to_the_end(scorer, batch())
    assert torch.allclose(values, scorer.read(batch(), "values")[0], atol=1e-6), (
        "the others are what they were"
    )
    for other in (5, 14):  # whatever comes next, its value is read before it
        longer = batch([[*ids, other] for ids in ROWS])
        expected = scorer.read(longer, "values")[0][torch.arange(3), torch.tensor([6, 4, 5])]
        assert torch.allclose(last, expected, atol=1e-6)


def test_only_what_is_needed_is_computed():
    class Named:
        def __init__(self, value):
            self.value = value

        def read(self, batch, signal):
            return [torch.full(batch.tokens.shape, self.value)]

    runtime = SimpleNamespace(
        policy=Named(1.0), reference=Named(2.0), full_kl=Named(3.0), critic=Named(4.0), shared_trunk=False
    )
    filled, _ = fill_signals(batch(), frozenset({"old_logprobs", "full_kl"}), runtime)
    assert filled.old_logprobs[0, 0] == 1 and filled.full_kl[0, 0] == 3
    assert filled.ref_logprobs is None and filled.values is None and filled.last_values is None
    filled, _ = fill_signals(batch(), frozenset({"ref_logprobs", "values"}), runtime)
    assert filled.ref_logprobs[0, 0] == 2 and filled.values[0, 0] == 4 and filled.old_logprobs is None


class Trainer:
    """Log-probs of -1 everywhere; remembers how many rows it was asked about."""

    def __init__(self):
        self.rows = 0

    def read(self, batch, signal):
        self.rows += len(batch)
        return [torch.where(batch.response_mask, -1.0, 0.0)]


@pytest.mark.parametrize(
    ("error", "reuse_below", "scored", "share"),
    [(5e-5, 1e-4, 2, 0.0), (2e-4, 1e-4, 18, 1.0), (0.0, 0.0, 16, 1.0)],
)
def test_the_samplers_logprobs_are_taken_where_they_are_measured_to_be_the_trainers(
    error, reuse_below, scored, share
):
    rows = batch(ROWS[:2] * 8)
    rows = rows.replace(sampled_logprobs=torch.full(rows.tokens.shape, -1.0 + error))
    trainer = Trainer()
    filled, metrics = fill_signals(
        rows, OLD, SimpleNamespace(policy=trainer, shared_trunk=False), reuse_below
    )
    old = filled.old_logprobs
    assert trainer.rows == scored and metrics["rollout/rescored_share"] == share
    expected = -1.0 + error if share == 0 else -1.0
    assert torch.allclose(old, torch.where(rows.response_mask, expected, 0.0), rtol=0, atol=1e-7)
    if share == 0:
        assert metrics["rollout/logprob_diff_max"] == pytest.approx(error, rel=0.01)
        assert metrics["rollout/logprob_diff_mean"] == pytest.approx(error, rel=0.01)


def test_a_reference_that_is_only_measured_reads_one_row_in_eight():
    rows = batch(ROWS * 4)
    trainer = Trainer()
    filled, _ = fill_signals(rows, frozenset({"some_ref_logprobs"}), SimpleNamespace(reference=trainer))
    assert trainer.rows == 2
    known = ~filled.ref_logprobs.isnan().any(-1)
    assert known.nonzero().flatten().tolist() == [0, 8]
    assert filled.ref_logprobs[0].sum() == -4 and filled.ref_logprobs[8].sum() == -3
    old = torch.where(rows.response_mask, -0.5, 0.0)
    metrics = law_metrics(filled.replace(old_logprobs=old), rows.response_mask)
    assert metrics["objective/kl"] == pytest.approx((4 * 0.5 + 3 * 0.5) / 2)
    assert metrics["objective/kl_tok"] == pytest.approx(0.5)


def test_without_a_record_of_the_sampler_the_trainer_scores():
    trainer = Trainer()
    filled, metrics = fill_signals(batch(), OLD, SimpleNamespace(policy=trainer, shared_trunk=False), 1.0)
    assert trainer.rows == 3 and metrics == {} and filled.old_logprobs.sum() == -9


def test_texts_come_in_shuffled_passes_and_by_place():
    rows = [Encoded([2, 7 + i, 3], [False, True, True], 1) for i in range(5)]
    stream = TextStream(rows, pad_id=0, seed=3)
    seen = stream.at(0, 10).tokens[:, 1].tolist()
    assert sorted(seen[:5]) == sorted(seen[5:]) == [7, 8, 9, 10, 11] and seen[:5] != seen[5:]
    assert stream.at(4, 3).tokens[:, 1].tolist() == seen[4:7], "a place always holds the same text"


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, batch):
        return self.weight


def test_further_batches_add_to_the_same_step():
    def loss(scale, name):
        return lambda batch, out: Loss(
            scale * len(batch) * out.sum(), {name: torch.tensor(float(len(batch)))}
        )

    learner = LocalLearner(
        Line(), OptimizerSection(lr=0.1), ComputeSection(tokens_per_microbatch=16), total_steps=1
    )
    metrics = learner.update(batch(), loss(1.0, "a"), [(batch(ROWS[:2]), loss(0.5, "b"))])
    assert metrics["a"] == 3 and metrics["b"] == 2
    assert metrics["grad_norm"] == pytest.approx((3 + 0.5 * 2) * 2**0.5) and learner.step == 1


def test_gradients_have_no_limit_where_it_is_off():
    def moved(limit):
        section = OptimizerSection(lr=0.1, max_grad_norm=limit, schedule="constant", warmup_fraction=0.0)
        learner = LocalLearner(Line(), section, ComputeSection(), total_steps=1)
        learner.optimizer = torch.optim.SGD(learner.module.parameters(), lr=0.1)
        learner.update(batch(), lambda b, out: Loss(10 * out.sum()))
        return learner.module.weight.tolist()

    assert moved(0.0) == pytest.approx([0.0, 1.0], abs=1e-6)
    assert moved(1.0) == pytest.approx([1 - 0.1 / 2**0.5, 2 - 0.1 / 2**0.5], abs=1e-5)
