"""The worker of Plaudit's side: the stages' own parts and loops with their defaults, one step at a time.

    python plaudit_side.py PLAN.json [auto|fp32|bf16]

Nothing is done here that a stage would not do, except that responses end at the lengths of the plan.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gate import Gate
from plan import OFFLINE, Plan, Row
from plan import PPO as PPO_TASKS

from plaudit import backends
from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reward_model import RewardModel as PairwiseLoss
from plaudit.algorithms.rloo import RLOO
from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.models import load_policy, load_reward_model
from plaudit.backends.local.precision import chosen_precision
from plaudit.backends.local.rewards import RewardModelScorer
from plaudit.config.sections import (
    ComputeSection,
    DataSection,
    LogSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations, collate_pairs
from plaudit.data.split import epoch_order
from plaudit.experience import Batch
from plaudit.generation import native
from plaudit.generation.sampling import sample_seed
from plaudit.jobs.registry import command_for
from plaudit.models.files.load import load_tokenizer
from plaudit.models.reward_model import RewardModel
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.rewards.model import ModelReward
from plaudit.runs.recorder import Recorder
from plaudit.runtime import TokenPrompt
from plaudit.training.offline import OfflineLoop
from plaudit.training.online import OnlineLoop

LR = 1e-6
QUIET = LogSection(trackers=())
APPEND = native._Draws._append


def main() -> None:
    """Build what the plan names, then serve steps."""
    plan = Plan.load(Path(sys.argv[1]))
    gate = gate_for(plan.device)
    compute = compute_of(plan, sys.argv[2] if len(sys.argv) > 2 else "auto")
    with tempfile.TemporaryDirectory() as run, Recorder(Path(run), command=plan.task, log=QUIET) as recorder:
        (offline if plan.task in OFFLINE else online)(plan, compute, gate, recorder)


def compute_of(plan: Plan, precision: str) -> ComputeSection:
    """With the precision that a stage would run in."""
    if precision == "auto":
        precision, _ = chosen_precision(plan.device, plan.model)
    return ComputeSection.model_validate({"device": plan.device, "precision": precision})


def gate_for(device: str) -> Gate:
    """Peak memory is that of the accelerator where there is one."""
    if not device.startswith("cuda"):
        return Gate()
    return Gate(
        torch.cuda.synchronize,
        lambda: torch.cuda.max_memory_allocated() / 1e9,
        torch.cuda.reset_peak_memory_stats,
    )


def in_order(items: Sequence[Any], seed: int) -> list[Any]:
    """Items placed so that the loop, which visits them in the order of `epoch_order`, sees them as they are given."""
    placed: list[Any] = [None] * len(items)
    for item, place in zip(items, epoch_order(len(items), seed, 0), strict=True):
        placed[place] = item
    return placed


def offline(plan: Plan, compute: ComputeSection, gate: Gate, recorder: Recorder) -> None:
    """SFT, reward model, DPO: `OfflineLoop` over a `LocalLearner`."""
    rows = in_order(plan.rows, plan.seed)
    algorithm, learner, collate = OBJECTIVES[plan.task](plan, compute, rows)
    seen: list[int] = []

    def batch_of(indices: Sequence[int]) -> Batch:
        batch = collate(indices)
        seen.append(int(batch.attention_mask.sum()))
        return batch

    def on_step(step: int, metrics: dict[str, float]) -> None:
        recorder.metrics(step, metrics)
        gate.step(seen.pop())

    gate.ready()
    OfflineLoop(algorithm, learner, batch_of, len(rows), plan.per_step, 1, plan.seed, on_step).run()


def encoded(prompt: Sequence[int], response: Sequence[int]) -> Encoded:
    """A row as the encoders of the stages give it."""
    mask = [False] * len(prompt) + [True] * len(response)
    return Encoded([*prompt, *response], mask, len(prompt))


Built = tuple[Any, LocalLearner, Callable[[Sequence[int]], Batch]]


def sft(plan: Plan, compute: ComputeSection, rows: Sequence[Row]) -> Built:
    """A policy and demonstrations."""
    tokenizer, policy = load_policy(plan.model, LoraSection(), compute, seed=plan.seed)
    texts = [encoded(r.prompt, r.chosen) for r in rows]

    def collate(indices: Sequence[int]) -> Batch:
        return collate_demonstrations([texts[i] for i in indices], tokenizer.pad_token_id)

    return SFT(), learner_of(policy, compute, plan), collate


def pairs(rows: Sequence[Row], pad_id: int, indices: Sequence[int]) -> Batch:
    """Chosen and rejected as a batch."""
    chosen = [encoded(rows[i].prompt, rows[i].chosen) for i in indices]
    rejected = [encoded(rows[i].prompt, rows[i].rejected) for i in indices]
    return collate_pairs(chosen, rejected, [0.0] * len(indices), [1.0] * len(indices), pad_id)


def reward_model(plan: Plan, compute: ComputeSection, rows: Sequence[Row]) -> Built:
    """A reward model and pairs."""
    tokenizer, model = load_reward_model(plan.model, LoraSection(), compute, seed=plan.seed)
    learner = learner_of(model, compute, plan, name="reward_model")
    return PairwiseLoss(), learner, partial(pairs, rows, tokenizer.pad_token_id)


def learner_of(module: Any, compute: ComputeSection, plan: Plan, **options: Any) -> LocalLearner:
    """As the stages build it."""
    return LocalLearner(module, OptimizerSection(lr=LR), compute, total_steps=plan.steps, **options)


def dpo(plan: Plan, compute: ComputeSection, rows: Sequence[Row]) -> Built:
    """A policy and pairs.

    The stage scores all rows by the reference before it trains; here each step pays for its own, as in TRL's default.
    """
    tokenizer, policy = load_policy(plan.model, LoraSection(), compute, seed=plan.seed)
    learner = learner_of(policy, compute, plan)

    def collate(indices: Sequence[int]) -> Batch:
        batch = pairs(rows, tokenizer.pad_token_id, indices)
        return batch.replace(ref_logprobs=learner.read(batch, "logprobs")[0])

    return DPO(), learner, collate


OBJECTIVES: dict[str, Callable[[Plan, ComputeSection, Sequence[Row]], Built]] = {
    "sft": sft,
    "rm": reward_model,
    "dpo": dpo,
}

ALGORITHMS: dict[str, Callable[[int], Any]] = {
    # Four optimizer steps an iteration, as TRL's default. The critic starts from the policy's weights.
    "ppo": lambda group: PPO(group_size=group, critic_warmup=0, critic_init="sft", critic_lr=LR),
    "ppo_trunk": lambda group: PPO(group_size=group, critic_warmup=0, critic="trunk", critic_lr=LR),
    # TRL's default has no KL, hence no reference model, and divides by the deviation of the group.
    "grpo": lambda group: GRPO(group_size=group, kl_coef=0.0, scale="group"),
    "rloo": lambda group: RLOO(group_size=group),
}


def online(plan: Plan, compute: ComputeSection, gate: Gate, recorder: Recorder) -> None:
    """PPO, GRPO, RLOO: `OnlineLoop` over the parts that the stage builds."""
    algorithm, longest = ALGORITHMS[plan.task](plan.group), max(len(r.prompt) for r in plan.rows)
    job = command_for(algorithm).job(
        policy=plan.model, algorithm=algorithm, iterations=plan.steps, seed=plan.seed, compute=compute,
        prompts_per_iteration=plan.per_step, sampling=SamplingSection(max_new_tokens=plan.max_new_tokens),
        data=DataSection(max_length=longest + plan.max_new_tokens),
        optimizer=OptimizerSection(lr=LR, schedule="constant", warmup_fraction=0.0),
    )  # fmt: skip
    records = [Prompt(f"r{i}", row.text) for i, row in enumerate(plan.rows)]
    opened = backends.open(job, reward=judge(plan, compute), gold=None, columns=())
    prompts = [TokenPrompt(p, tuple(r.prompt)) for p, r in zip(records, plan.rows, strict=True)]
    force_lengths(plan, records)

    def on_iteration(iteration: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        recorder.metrics(iteration, metrics)
        wanted = [n for row in plan.step_rows(iteration - 1) for n in row.lengths]
        assert [len(r.response_ids) for r in rollouts] == wanted, "responses have the forced lengths"
        laps = {name: value for name, value in metrics.items() if name.startswith("time/")}
        gate.step(sum(wanted), **laps)

    loop = OnlineLoop(
        job.algorithm, opened.machines, in_order(prompts, plan.seed), job.sampling, plan.per_step,
        opened.format.pad_id, plan.seed, on_iteration, mismatch=job.mismatch.with_products(compute.precision),
    )  # fmt: skip
    gate.ready()
    loop.run(plan.steps)


def judge(plan: Plan, compute: ComputeSection) -> Any:
    """PPO: a reward model with the weights of the policy. Otherwise a function that costs nothing."""
    if plan.task not in PPO_TASKS:
        return score
    tokenizer = load_tokenizer(plan.model)
    model = RewardModel.start(plan.model, tokenizer, seed=plan.seed)
    return ModelReward(RewardModelScorer(model, tokenizer, compute))


def score(rollouts: Sequence[Rollout]) -> list[RewardResult]:
    """A reward that costs nothing and differs within a group."""
    return [RewardResult(float(len(r.response) % 7)) for r in rollouts]


def force_lengths(plan: Plan, records: Sequence[Prompt]) -> None:
    """Let response k to a prompt end at its length in the plan and nowhere else."""
    lengths = {
        sample_seed(plan.seed, i // plan.per_step, record.id, k): n
        for i, (record, row) in enumerate(zip(records, plan.rows, strict=True))
        for k, n in enumerate(row.lengths)
    }

    def forced(self: Any, row: Any, token: int, logprob: float) -> None:
        APPEND(self, row, token, logprob)
        row.finish = "length" if len(row.ids) >= lengths[row.seed] else None

    native._Draws._append = forced  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
