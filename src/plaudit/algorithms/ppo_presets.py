"""PPO-max (Zheng et al., arXiv:2307.04964) as its paper recommends it, and as the script released with it runs it.

Their learning rates and batches are settings of the run, not of the algorithm: docs/algorithms/ppo.md lists them.
"""

from __future__ import annotations

from dataclasses import replace

from plaudit.algorithms.ppo import PPO

_SHARED = PPO(
    epochs=1,
    minibatches=4,
    clip=0.2,
    target_kl=0.0,
    missing_eos_penalty=0.0,
    gae_lambda=0.95,
    whiten_advantages="none",
    value_clip=0.2,
    critic="reward",
)

PPO_MAX_PAPER = replace(
    _SHARED, kl_coef=0.05, reward_scaling="normalize", reward_clip=5.0, critic_lr=1.65e-6, critic_warmup=10
)
"""Section 5.4: token-level KL, rewards normalised and clipped, a critic from the reward model and trained ahead, value
clip; the advantages are left as they are."""

PPO_MAX_CODE = replace(
    _SHARED, kl_coef=0.01, reward_scaling="scale", reward_clip=0.0, critic_lr=1.5e-6, critic_warmup=0
)
"""`train_ppo_en.sh`: scores divided by their running std, not normalised nor clipped; a weaker KL; no critic ahead."""
