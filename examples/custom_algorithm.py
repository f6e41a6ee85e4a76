"""An algorithm of one's own: plain REINFORCE with the mean reward as baseline, no critic.

    A_i  = R_i - mean(R),   R_i = score_i - kl_coef * sum_t (log policy - log reference)
    loss = -1/N sum_i A_i sum_t log policy(token t of response i)

An algorithm is a frozen dataclass that is its own config: its fields are the keys of the ``[algorithm]`` table, and
``needs`` names the signals that the loop computes for it. What it does not name is not computed; without "values"
there is no critic. From the command line, with this file in the current directory and in a TOML file

    [algorithm]
    type = "custom_algorithm:Reinforce"
    kl_coef = 0.1

``plaudit ppo my.toml`` trains with it. From Python: ``plaudit.train(Reinforce(kl_coef=0.1), policy=..., ...)``.

``python custom_algorithm.py`` trains a tiny random model, offline and in seconds, to say "good".
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

import plaudit
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.weights import loss_weights
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """REINFORCE with a mean baseline (Williams, 1992). One optimizer step a batch, so no importance ratio."""

    group_size: int = 4
    """Responses sampled per prompt."""
    epochs: int = 1
    """Passes over each batch of rollouts; more than one would need a ratio."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    target_kl: float = 0.0
    """0: inner epochs never stop early (there is only one)."""
    kl_coef: float = 0.05
    """Weight of the KL to the reference in the reward, per nat."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"old_logprobs", "ref_logprobs"})

    def start(self) -> Carry:
        """What iterations hand on to each other: here the KL coefficient, which stays as it is."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Rewards to advantages, for the whole batch. A row whose reward failed (NaN) is masked out."""
        assert batch.rewards is not None and batch.old_logprobs is not None and batch.ref_logprobs is not None
        valid = ~batch.rewards.isnan()
        mask = batch.response_mask & valid[:, None]
        kl = torch.where(mask, batch.old_logprobs - batch.ref_logprobs, 0.0).sum(-1)
        returns = batch.rewards - carry.kl_coef * kl
        advantages = torch.where(valid, returns - returns[valid].mean(), 0.0)
        metrics = {"objective/kl": float(kl[valid].mean()), "objective/kl_coef": carry.kl_coef}
        metrics["objective/kl_coef_in_force"] = carry.kl_coef  # nothing divides the reward that does not divide the KL
        return Credit(batch.replace(response_mask=mask, advantages=advantages[:, None] * mask), carry, metrics)

    def weights(self, batch: Experience) -> Experience:
        """Sum over the tokens of a response, mean over responses: the unbiased gradient of the expected reward."""
        return batch.replace(loss_weights=loss_weights(batch.response_mask, "sequence_mean_token_sum"))

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """``-A log policy``; a weighted sum, so microbatches add up."""
        assert out.logprobs is not None and out.entropy is not None
        assert batch.advantages is not None
        value = batch.weighted_sum(-batch.advantages * out.logprobs)
        return Loss(value, {"policy/loss": value.detach()})


def main(out: Path) -> plaudit.Run:
    """Train a tiny model from nothing with the algorithm above."""
    words = "say the day was good bad warm cold and then it".split()
    tokenizer = tiny_tokenizer([" ".join(words)], 64, chat=False)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=32, layers=1), out / "start", tokenizer)
    return plaudit.train(
        Reinforce(group_size=4),
        policy=str(out / "start"),
        prompts=[f"say the {word}" for word in words],
        reward=lambda prompt, response: float(response.split().count("good")),
        out=str(out / "run"), iterations=12, prompts_per_iteration=8, lr=2e-2, max_new_tokens=6, max_length=32,
        eval_fraction=0.3, progress=False, tensorboard=False,
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        figures = main(Path(folder)).summary
        print(f"good per response: {figures['reward_mean_before']:.2f} -> {figures['reward_mean']:.2f}")
