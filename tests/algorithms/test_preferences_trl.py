"""The preference family against TRL 1.12.0: the same model and batch in fp32, losses and gradients."""

import os
from collections import defaultdict
from types import MethodType, SimpleNamespace

import pytest
import torch

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_pairs, collate_ratings
from plaudit.functional.preference_losses import row_sums
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.stages.encode import Rows
from plaudit.stages.preference.feedback import Feedback, mismatched

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = "red blue green warm cold good bad big"


def trl(path, name):
    pytest.importorskip("trl", reason="the oracle: pip install 'plaudit[oracle]'")
    return getattr(pytest.importorskip(path), name)


@pytest.fixture(scope="module")
def models():
    """A policy, and a reference some way off."""
    tokenizer = tiny_tokenizer([WORDS], chat=False)
    made = [tiny_lm("llama", tokenizer, hidden=16, layers=2, scale=0.5, seed=seed) for seed in (0, 1)]
    for lm in made:
        lm.eval()
    return made, tokenizer.pad_token_id


def rows(count, seed=0):
    """Rows of 2 to 4 prompt and 1 to 5 response tokens."""
    drawn = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(count):
        prompt, answer = (
            int(torch.randint(low, high, (), generator=drawn)) for low, high in ((2, 5), (1, 6))
        )
        ids = torch.randint(4, 12, (prompt + answer,), generator=drawn).tolist()
        result.append(Encoded(ids, [i >= prompt for i in range(prompt + answer)], prompt))
    return result


def fake(**settings):
    """As much of a trainer as its loss looks at."""
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda m: m
        ),
        aux_loss_enabled=False, precompute_ref_logps=True,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0, args=SimpleNamespace(), ref_model=None, **settings,
    )  # fmt: skip


def gradients(lm, loss):
    lm.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}


def assert_same(lm, ours, theirs):
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    one, other = gradients(lm, ours), gradients(lm, theirs)
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], atol=1e-5, rtol=1e-4)


@pytest.fixture
def pairs(models):
    (lm, reference), pad = models
    chosen, rejected = rows(5, seed=1), rows(5, seed=2)
    batch = collate_pairs(chosen, rejected, [0.0] * 5, [1.0] * 5, pad)
    with torch.no_grad():
        return batch.replace(ref_logprobs=Policy(reference)(batch).logprobs), Policy(lm)


@pytest.mark.parametrize(
    ("algorithm", "kind", "smoothing"),
    [
        (DPO(), "sigmoid", 0.0), (DPO(beta=0.5), "sigmoid", 0.0), (IPO(), "ipo", 0.0), (Hinge(beta=0.3), "hinge", 0.0),
        (DPO(label_smoothing=0.1, robust=True), "robust", 0.1),
    ],
)  # fmt: skip
def test_dpo(pairs, algorithm, kind, smoothing):
    batch, policy = pairs
    trainer = trl("trl.trainer.dpo_trainer", "DPOTrainer")
    order = torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])  # theirs: all chosen, then all rejected
    reference = row_sums(batch.ref_logprobs, batch.response_mask)
    inputs = {
        "input_ids": batch.tokens[order], "attention_mask": batch.attention_mask[order].long(),
        "completion_mask": batch.response_mask[order].long(),
        "ref_chosen_logps": reference[0::2], "ref_rejected_logps": reference[1::2],
    }  # fmt: skip
    its = fake(
        model=policy.lm, ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[kind], loss_weights=[1.0],
        beta=algorithm.beta, label_smoothing=smoothing, use_weighting=False,
    )  # fmt: skip
    theirs = trainer._compute_loss(its, policy.lm, inputs, False)
    ours = algorithm.loss(algorithm.weights(batch), policy(batch))
    assert_same(policy.lm, ours.value, theirs)
    if kind != "ipo":  # theirs reports the rewards of the summed log-ratios there
        seen = its._metrics["eval"]
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert float(ours.metrics[name]) == pytest.approx(seen[name][0], abs=1e-5)


def test_simpo(pairs):
    batch, policy = pairs
    trainer = trl("trl.experimental.cpo.cpo_trainer", "CPOTrainer")
    means = row_sums(policy(batch).logprobs, batch.response_mask) / batch.response_mask.sum(-1)
    its = fake(alpha=0.0, loss_type="simpo", simpo_gamma=1.0, beta=2.0, label_smoothing=0.0)
    theirs = trainer.cpo_loss(its, means[0::2], means[1::2])[0].mean()
    algorithm = SimPO(beta=2.0, margin=1.0)
    assert_same(policy.lm, algorithm.loss(algorithm.weights(batch), policy(batch)).value, theirs)


def test_orpo(pairs):
    """The odds ratio is theirs; their imitation term also counts the prompt, and token by token over the batch."""
    batch, policy = pairs
    trainer = trl("trl.experimental.orpo.orpo_trainer", "ORPOTrainer")
    means = row_sums(policy(batch).logprobs, batch.response_mask) / batch.response_mask.sum(-1)
    losses = trainer.odds_ratio_loss(fake(beta=0.1), means[0::2], means[1::2])[0]
    algorithm = ORPO(ratio_coef=0.1)
    ours = algorithm.loss(algorithm.weights(batch), policy(batch))
    assert_same(policy.lm, ours.value, -means[0::2].mean() - losses.mean())


class Scorer:
    """A frozen model, as the stage has it."""

    def __init__(self, policy):
        self.policy = policy

    @torch.no_grad()
    def read(self, batch, signal):
        return [self.policy(batch).logprobs]


def test_kto(models):
    (lm, reference), pad = models
    trainer = trl("trl.trainer.kto_trainer", "KTOTrainer")
    encoded, labels = rows(6, seed=3), [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    records = [SimpleNamespace(prompt=str(i)) for i in range(6)]  # all prompts differ: ours is plain rotation
    batch = collate_ratings(encoded, labels, pad)
    policy, start = Policy(lm), Scorer(Policy(reference))

    feedback = Feedback(Rows(records, [(row,) for row in encoded], None), pad, start, 64)
    feedback._plain = lambda indices: batch
    feedback.precompute(KTO.needs, [range(6)])
    feedback.scorer = Scorer(policy)
    mine = feedback.collate(range(6))

    other = collate_ratings(mismatched([r.prompt for r in records], encoded, 64), labels, pad)
    inputs = {
        "input_ids": batch.tokens, "attention_mask": batch.attention_mask.long(),
        "completion_mask": batch.response_mask.long(), "label": torch.tensor(labels).bool(),
        "KL_input_ids": other.tokens, "KL_attention_mask": other.attention_mask.long(),
        "KL_completion_mask": other.response_mask.long(),
        "ref_logps": row_sums(start.read(batch, "logprobs")[0], batch.response_mask),
        "ref_KL_logps": row_sums(start.read(other, "logprobs")[0], other.response_mask),
    }  # fmt: skip
    its = fake(
        model=lm, calculate_KL=True, use_liger_kernel=False, loss_type="kto", beta=0.1, desirable_weight=1.5,
        undesirable_weight=0.7,
    )  # fmt: skip
    its._compute_kl_logps = MethodType(trainer._compute_kl_logps, its)
    theirs = trainer._compute_loss(its, lm, inputs, False)
    algorithm = KTO(up_weight=1.5, down_weight=0.7)
    ours = algorithm.loss(algorithm.weights(mine), policy(mine))
    assert float(mine.mismatched_kl[0]) == pytest.approx(its._metrics["eval"]["kl"][0], abs=1e-4)
    assert_same(lm, ours.value, theirs)
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        assert float(ours.metrics[name]) == pytest.approx(its._metrics["eval"][name][0], abs=1e-4)
