"""The whole of RLHF in minutes, from nothing: a small world of reviews, simulated annotators, a model made on the spot.

The true preference of this world is known, so the last line of the story is a measurement: did the policy get better
by the judge that it was never trained on?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plaudit import backends
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import (
    CheckpointSection,
    ComputeSection,
    DataSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.data.write import write_records
from plaudit.demo import reviews
from plaudit.errors import ConfigError
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.loop.simulated import TextPair, judge_pairs, panel, to_preferences
from plaudit.machine import check_writable
from plaudit.models.files.saving import write
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration, Judgement, Preference, Prompt
from plaudit.runtime import TokenPrompt
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

ERROR_RATE = 0.05
ASKED = 20
"""Comparisons that a person is asked for, where one takes part."""
Ask = Callable[[Sequence[TextPair]], list[Judgement]]
"""Puts (prompt, response a, response b) to a person; what they did not answer is not in the list."""
GOLD = "plaudit.demo.reviews:true_score"
SAMPLING = SamplingSection(max_new_tokens=48)
DATA = DataSection(max_length=96, eval_fraction=0.2)
"""One share for all stages: a prompt is held out by a hash of its words, the seed and the share, so a prompt that is
held out in one stage is held out in all of them, and the policy is judged on prompts that no stage has trained on."""
COMPUTE = ComputeSection(
    precision="fp32", threads=1
)  # as fast for matrices this small, and the same bits everywhere
CHECKPOINT = CheckpointSection(every=0)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; the defaults take about three minutes on two CPU cores."""

    demonstrations: int = 4500
    sft_epochs: int = 3
    comparisons: int = 5600
    annotators_per_comparison: int = 1
    prompts: int = 1150
    """Different prompts of the reinforcement learning, a fifth of them held out."""
    iterations: int = 50
    prompts_per_iteration: int = 64
    eval_prompts: int = 128
    hidden: int = 128
    layers: int = 2


def run_quickstart(out: Path, seed: int = 0, scale: Scale | None = None, ask: Ask | None = None) -> Path:
    """Make the world, train SFT, reward model and PPO in it; returns ``out`` with sft/, reward/ and ppo/ inside.

    ``ask`` puts the first comparisons to a person; what they leave out is judged by simulated annotators.
    """
    scale = scale or Scale()
    check_writable(out)
    if out.exists() and any(out.iterdir()):
        raise ConfigError("the directory is not empty", where=str(out), cure="choose another --out")
    sft, reward = prepare(out, seed, scale, ask)
    _say("3 of 4  PPO: the model learns to write what the reward model likes, near where it started")
    write_records(reviews.prompts(scale.prompts, seed), out / "data" / "prompts.jsonl", "plaudit")
    run_rl(ppo_job(out, sft, reward, scale, common(seed)))
    _say("4 of 4  evaluation: the true preference of this world is the judge")
    return out


def common(seed: int) -> dict[str, Any]:
    """The settings that all stages of the quickstart share."""
    return {"seed": seed, "data": DATA, "compute": COMPUTE, "checkpoint": CHECKPOINT}


def prepare(out: Path, seed: int, scale: Scale, ask: Ask | None = None) -> tuple[Path, Path]:
    """All that comes before the reinforcement learning: the runs of the SFT model and of the reward model.

    Writes the preferences as well, to data/preferences.jsonl.
    """
    out.mkdir(parents=True, exist_ok=True)
    _say("1 of 4  demonstrations: people write reviews, good and bad")
    # A plain-text prompt is continued as it stands, so the response brings the space between the two.
    demonstrations = [
        replace(d, response=f" {d.response}") for d in reviews.demonstrations(scale.demonstrations, seed)
    ]
    write_records(demonstrations, out / "data" / "demonstrations.jsonl", "plaudit")
    _start_model(out / "start", demonstrations, scale, seed)
    sft = run_sft(
        SFTJob(
            model=str(out / "start"), dataset=str(out / "data" / "demonstrations.jsonl"), out=str(out / "sft"),
            epochs=scale.sft_epochs, batch_size=16, optimizer=OptimizerSection(lr=4e-3), sampling=SAMPLING,
            **common(seed),
        )
    )  # fmt: skip

    _say(
        "2 of 4  comparisons: simulated annotators, who err at a known rate, compare two reviews of the model"
    )
    preferences = collect(sft / "model", scale, seed, ask)
    write_records(preferences, out / "data" / "preferences.jsonl", "plaudit")
    reward = run_reward(
        RewardJob(
            model=str(sft / "model"), dataset=str(out / "data" / "preferences.jsonl"), out=str(out / "reward"),
            epochs=2, batch_size=16, optimizer=OptimizerSection(lr=1e-3), **common(seed),
        )
    )  # fmt: skip
    return sft, reward


def ppo_job(out: Path, sft: Path, reward: Path, scale: Scale, shared: dict[str, Any]) -> RLJob:
    """The PPO settings of the quickstart."""
    return RLJob(
        policy=str(sft / "model"),
        reward=(str(reward / "model"),),
        gold=(GOLD,),
        dataset=str(out / "data" / "prompts.jsonl"),
        out=str(out / "ppo"),
        iterations=scale.iterations,
        prompts_per_iteration=scale.prompts_per_iteration,
        eval_prompts=scale.eval_prompts,
        algorithm=PPO(kl_coef=0.05, critic_lr=5e-4, epochs=2, minibatches=2, critic_warmup=3),
        optimizer=OptimizerSection(lr=2e-4, schedule="linear", warmup_fraction=0.0),
        sampling=SAMPLING,
        **shared,
    )


def collect(model: Path, scale: Scale, seed: int, ask: Ask | None = None) -> list[Preference]:
    """Two responses of the SFT model to each prompt, judged by a person (the first ones) and simulated annotators."""
    generator, chat = backends.open_policy(str(model))
    prompts = _repeat(reviews.prompts(min(scale.comparisons, 1000), seed), scale.comparisons)
    tokenised = [TokenPrompt(p, tuple(chat.prompt_ids(p.content))) for p in prompts]
    rollouts = generator.generate(tokenised, 2, SAMPLING, seed=seed, iteration=-2)
    twos = zip(rollouts[::2], rollouts[1::2], strict=True)
    texts = [(str(a.prompt.content), a.response, b.response) for a, b in twos]
    annotators = panel(5, error_rate=ERROR_RATE)
    different = [pair for pair in texts if pair[1] != pair[2]]
    mine = ask(different[:ASKED]) if ask else []
    answered = {frozenset((str(j.response_a), str(j.response_b))) for j in mine}
    rest = [pair for pair in different if frozenset(pair[1:]) not in answered]
    judged = mine + judge_pairs(
        rest,
        annotators,
        reviews.true_score,
        seed=seed,
        annotators_per_item=scale.annotators_per_comparison,
    )
    return to_preferences(judged)


def _repeat(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """``n`` prompts; a prompt that comes again gets an id of its own, hence responses of its own."""
    rounds = ((i // len(prompts), prompts[i % len(prompts)]) for i in range(n))
    return [Prompt(f"{prompt.id}-{number}", prompt.content) for number, prompt in rounds]


def _start_model(path: Path, demonstrations: Sequence[Demonstration], scale: Scale, seed: int) -> None:
    """A small Llama with random weights and a tokenizer of the world's words."""
    texts = [f"{d.prompt}{d.response}" for d in demonstrations]
    texts += [str(p.content) for split in ("train", "heldout") for p in reviews.all_prompts(split)]
    tokenizer = tiny_tokenizer(texts, 1024, kind="word", chat=False)
    lm = tiny_lm("llama", tokenizer, hidden=scale.hidden, layers=scale.layers, seed=seed, scale=0.08)
    write(lm, path, tokenizer)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
