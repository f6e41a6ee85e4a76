"""What PPO refuses, and what it warns of."""

from __future__ import annotations

from typing import Any

from plaudit.errors import ConfigError


def refuse_impossible(ppo: Any) -> None:
    """Settings that contradict each other or mean nothing.

    Raises:
        ConfigError: the first of them, with its cure.
    """
    if ppo.group_size < 1 or ppo.epochs < 1 or ppo.minibatches < 1:
        raise ConfigError(
            f"group_size, epochs and minibatches must be at least 1, found "
            f"{ppo.group_size}, {ppo.epochs}, {ppo.minibatches}",
            where="[algorithm]",
            cure="set them to 1 or more",
        )
    _refuse_negative(ppo)
    for name, what, cure in _contradictions(ppo):
        raise ConfigError(what, where=f"[algorithm] {name}", cure=cure)


def _refuse_negative(ppo: Any) -> None:
    names = (
        "clip", "clip_high", "dual_clip", "kl_coef", "kl_target", "missing_eos_penalty", "reward_clip", "lambda_alpha",
        "advantage_clip", "value_clip", "entropy_coef", "entropy_target", "entropy_step", "ptx_coef", "target_kl",
        "ratio_limit", "critic_warmup",
    )  # fmt: skip
    for name in names:
        if getattr(ppo, name) < 0:
            raise ConfigError(
                f"{name} is {getattr(ppo, name)}, but must not be negative",
                where=f"[algorithm] {name}",
                cure="0 switches it off",
            )
    shares = {"gamma": ppo.gamma, "gae_lambda": ppo.gae_lambda}
    if not isinstance(ppo.critic_lambda, str):
        shares["critic_lambda"] = ppo.critic_lambda
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(
                f"{name} is {share}", where=f"[algorithm] {name}", cure="use a number from 0 to 1"
            )


def _contradictions(ppo: Any) -> list[tuple[str, str, str]]:
    """Setting, what is wrong, cure."""
    found = []
    if ppo.kl_target > 0 and ppo.kl_coef <= 0:
        found.append(
            ("kl_coef", "kl_target asks for an adaptive kl_coef, which cannot grow from 0",
             "set kl_coef to a start value such as 0.1, or kl_target to 0")
        )  # fmt: skip
    if 0 < ppo.dual_clip <= 1:
        found.append(
            ("dual_clip", f"dual_clip is {ppo.dual_clip}: it would bound every loss of a negative advantage",
             "use a number above 1, such as 3, or 0 to switch it off")
        )  # fmt: skip
    if ppo.kl_in == "loss" and ppo.kl_estimator == "full":
        found.append(
            ("kl_estimator", "the full KL is computed once, without a gradient, so it cannot be a loss",
             'use kl_in = "reward", or kl_estimator = "k3" with kl_grad = "unbiased"')
        )  # fmt: skip
    if ppo.kl_in == "loss" and ppo.kl_estimator == "k1" and ppo.kl_grad == "naive":
        found.append(
            ("kl_grad", "the gradient of k1 as a loss is 0 on average: it would hold the policy nowhere",
             'use kl_grad = "unbiased", or kl_estimator = "k2"')
        )  # fmt: skip
    if ppo.kl_estimator == "full" and ppo.whiten_rewards:
        found.append(
            ("whiten_rewards", "whitened rewards have another unit than the KL of kl_estimator = full",
             "switch one of the two off")
        )  # fmt: skip
    if ppo.entropy_target > 0 and ppo.entropy_coef <= 0:
        found.append(
            (
                "entropy_coef",
                "entropy_target needs a weight",
                "set entropy_coef, such as 0.01, or entropy_target to 0",
            )
        )
    if ppo.entropy_step > 0 and ppo.entropy_target <= 0:
        found.append(
            ("entropy_step", "entropy_step moves entropy_coef while the entropy is off entropy_target, which is 0",
             "set entropy_target in nats per token, or entropy_step to 0")
        )  # fmt: skip
    if 0 < ppo.ratio_limit <= 1:
        found.append(
            ("ratio_limit", f"ratio_limit is {ppo.ratio_limit:g}, and the ratio of a policy at rest is 1",
             "use 10, or 0 to switch it off")
        )  # fmt: skip
    if ppo.critic == "trunk" and ppo.value_coef <= 0:
        found.append(
            ("value_coef", f"value_coef is {ppo.value_coef:g}, so a critic on the policy's trunk would learn nothing",
             'use a weight above 0, such as 0.1, or critic = "separate"')
        )  # fmt: skip
    if (ppo.ptx_coef > 0) != bool(ppo.ptx_dataset):
        found.append(
            ("ptx_dataset", "ptx_coef and ptx_dataset go together: a weight, and texts for it",
             "set both, or neither")
        )  # fmt: skip
    return found


def cautions(ppo: Any) -> tuple[str, ...]:
    """What is allowed and probably not meant, in words for the user."""
    found = []
    if ppo.value_clip and ppo.reward_scaling == "none":
        found.append(
            f"value_clip {ppo.value_clip:g} is in units of the reward, which is not scaled: so "
            "the critic may learn slowly; use reward_scaling normalize, or value_clip 0"
        )
    if ppo.old_policy == "ref":
        found.append("old_policy ref is an experiment of arXiv:2307.04964: steadier, and worse in the end")
    if ppo.kl_in == "reward" and ppo.kl_estimator in ("k2", "k3"):
        found.append(f"{ppo.kl_estimator} in the reward does not have the gradient of the KL; k1 and full do")
    if ppo.kl_in == "loss" and ppo.kl_estimator == "k3" and ppo.kl_grad == "naive":
        found.append("k3 differentiated as it stands is KL(reference || policy), another objective")
    if ppo.entropy_coef and not ppo.entropy_target and not ppo.clip:
        found.append("an entropy bonus without clip has no bound")
    if not ppo.kl_coef:
        found.append("kl_coef 0: nothing holds the policy near its reference but kl_limit")
    return tuple(found)
