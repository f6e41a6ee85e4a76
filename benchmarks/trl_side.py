"""The worker of TRL's side: its trainers, one step at a time. Needs TRL 1.12.0 (the last with PPO), not Plaudit.

    python trl_side.py PLAN.json VARIANT

Variants: ``default`` (fp32 weights, bf16 autocast, gradient checkpointing), ``fp32`` (no autocast, no checkpointing),
``bf16`` (bf16 weights and optimizer state, no checkpointing; not numerically equal).
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from forced import ForcedLength
from gate import Gate
from plan import OFFLINE, PPO, Plan
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    LogitsProcessorList,
    TrainerCallback,
)

VARIANTS = ("default", "fp32", "bf16")


def main() -> None:
    """Build the trainer of the plan's task and serve steps."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    plan, variant = Plan.load(Path(sys.argv[1])), sys.argv[2]
    gate = gate_for(plan.device)
    torch.manual_seed(plan.seed)
    counter = Counter(gate)
    with tempfile.TemporaryDirectory() as out:
        settings = common(plan, variant, out)
        trainer = (offline if plan.task in OFFLINE else online)(plan, variant, settings, counter)
        trainer.train()


def gate_for(device: str) -> Gate:
    """Peak memory is that of the accelerator where there is one."""
    if not device.startswith("cuda"):
        return Gate()
    return Gate(
        torch.cuda.synchronize,
        lambda: torch.cuda.max_memory_allocated() / 1e9,
        torch.cuda.reset_peak_memory_stats,
    )


class Counter(TrainerCallback):
    """Tells the gate when a step is over and how many tokens it had."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.tokens = gate, 0

    def on_train_begin(self, *args: Any, **options: Any) -> None:
        self.gate.ready()

    def on_step_end(self, *args: Any, **options: Any) -> None:
        tokens, self.tokens = self.tokens, 0
        self.gate.step(tokens)


def common(plan: Plan, variant: str, out: str) -> dict[str, Any]:
    """Arguments of every trainer."""
    settings: dict[str, Any] = {
        "output_dir": out, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "use_cpu": plan.device == "cpu", "learning_rate": 1e-6, "seed": plan.seed, "max_steps": plan.steps,
    }  # fmt: skip
    if variant != "default":
        settings["gradient_checkpointing"] = False
    if variant == "fp32":
        settings["bf16"] = False
    return settings


def init_kwargs(variant: str) -> dict[str, Any] | None:
    return {"dtype": "bfloat16"} if variant == "bf16" else None


def offline(plan: Plan, variant: str, settings: dict[str, Any], counter: Counter) -> Any:
    """SFT, reward model, DPO."""
    import trl

    tokenizer = AutoTokenizer.from_pretrained(plan.model)
    trainer_class, config_class = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "rm": (trl.RewardTrainer, trl.RewardConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
    }[plan.task]
    options: dict[str, Any] = {"completion_only_loss": True} if plan.task == "sft" else {}
    config = config_class(
        **settings, per_device_train_batch_size=plan.per_step, model_init_kwargs=init_kwargs(variant),
        train_sampling_strategy="sequential", **options,
    )  # fmt: skip
    trainer = trainer_class(
        plan.model, args=config, train_dataset=dataset(plan), processing_class=tokenizer, callbacks=[counter]
    )
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        counter.tokens += int(inputs["attention_mask"].sum())
        return step(model, inputs, *args, **more)

    trainer.training_step = counted
    return trainer


def dataset(plan: Plan) -> Dataset:
    """The rows in the columns that the trainer of the task reads."""
    if plan.task == "sft":
        return Dataset.from_list(
            [
                {
                    "input_ids": r.prompt + r.chosen,
                    "completion_mask": [0] * len(r.prompt) + [1] * len(r.chosen),
                }
                for r in plan.rows
            ]
        )
    if plan.task == "rm":
        return Dataset.from_list(
            [{"chosen_ids": r.prompt + r.chosen, "rejected_ids": r.prompt + r.rejected} for r in plan.rows]
        )
    if plan.task == "dpo":  # takes texts only; they encode to the same tokens, which the parent checks
        return Dataset.from_list(
            [{"prompt": r.text, "chosen": r.chosen_text, "rejected": r.rejected_text} for r in plan.rows]
        )
    return Dataset.from_list([{"prompt": r.text} for r in plan.rows])


def force_lengths(model: Any, plan: Plan, end: int) -> None:
    """Wrap ``generate`` so that the responses of call k have the lengths of step k."""
    generate = model.generate
    steps: Iterator[int] = iter(range(plan.steps))

    def forced(*args: Any, **options: Any) -> Any:
        lengths = [n for row in plan.step_rows(next(steps)) for n in row.lengths]
        ids = options["input_ids"]
        processor = ForcedLength(lengths, ids.shape[1], end, ids.device)
        return generate(*args, logits_processor=LogitsProcessorList([processor]), **options)

    model.generate = forced


def online(plan: Plan, variant: str, settings: dict[str, Any], counter: Counter) -> Any:
    """GRPO, RLOO, PPO."""
    if plan.task in PPO:
        return ppo(plan, variant, settings, counter)
    import trl

    tokenizer = AutoTokenizer.from_pretrained(plan.model)
    trainer_class, config_class = {
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
    }[plan.task]
    config = config_class(
        **settings, per_device_train_batch_size=plan.per_step * plan.group, num_generations=plan.group,
        max_completion_length=plan.max_new_tokens, model_init_kwargs=init_kwargs(variant), shuffle_dataset=False,
        beta=0.0,
    )  # fmt: skip

    def reward(completions: Sequence[str], **columns: Any) -> list[float]:
        return [float(len(text) % 7) for text in completions]

    trainer = trainer_class(
        plan.model, args=config, train_dataset=dataset(plan), processing_class=tokenizer, reward_funcs=reward,
        callbacks=[counter],
    )  # fmt: skip
    force_lengths(trainer.model, plan, tokenizer.eos_token_id)
    sample = trainer._generate_and_score_completions

    def counted(*args: Any, **options: Any) -> Any:
        output = sample(*args, **options)
        counter.tokens += int(output["completion_mask"].sum())
        return output

    trainer._generate_and_score_completions = counted
    return trainer


def ppo(plan: Plan, variant: str, settings: dict[str, Any], counter: Counter) -> Any:
    """PPO with four separate models."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer
    from trl.experimental.ppo import ppo_trainer as module

    tokenizer = AutoTokenizer.from_pretrained(plan.model, padding_side="left")
    dtype = torch.bfloat16 if variant == "bf16" else torch.float32
    policy, reference = (AutoModelForCausalLM.from_pretrained(plan.model, dtype=dtype) for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(plan.model, num_labels=1, dtype=dtype)
        for _ in range(2)
    )
    for model in (policy, reference, reward, value):
        model.config.pad_token_id = tokenizer.pad_token_id
    settings.pop("max_steps")
    rows = plan.per_step
    config = PPOConfig(
        **settings, per_device_train_batch_size=rows, gradient_accumulation_steps=1, num_mini_batches=1,
        total_episodes=plan.steps * rows, response_length=plan.max_new_tokens, num_ppo_epochs=4, temperature=1.0,
        num_sample_generations=0, stop_token="eos", local_rollout_forward_batch_size=rows,
    )  # fmt: skip
    data = Dataset.from_list([{"input_ids": r.prompt} for r in plan.rows])
    collator = DataCollatorWithPadding(tokenizer)
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=data, eval_dataset=data.select(range(rows)), callbacks=[counter],
        data_collator=collator,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(data, batch_size=rows, collate_fn=collator, drop_last=True)
    trainer.dataloader = trainer.accelerator.prepare(loader)  # its own shuffles; the data must be the same
    force_lengths(policy, plan, tokenizer.eos_token_id)
    sample = module.batch_generation

    def counted(model: Any, queries: torch.Tensor, *args: Any) -> Any:
        output = sample(model, queries, *args)
        ended = output[0][:, queries.shape[1] :] == tokenizer.eos_token_id
        assert bool(ended.any(-1).all()), "every response ends with the end token"
        counter.tokens += int((ended.int().argmax(-1) + 1).sum())
        return output

    module.batch_generation = counted
    return trainer


if __name__ == "__main__":
    main()
