"""Names of settings in TRL, OpenRLHF, LLaMA-Factory and the field's guides, and what says the same here.

A name means a setting only where the meaning and the unit are the same. Every other one has a sentence that names what
to write instead: a wrong guess would be worse than none.
"""

from __future__ import annotations

ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("learning_rate", "actor_learning_rate"), ("optimizer.lr",)),
    "batch_size": ("prompts_per_iteration",),
    "rollout_batch_size": ("prompts_per_iteration",),
    "train_batch_size": ("batch_size",),
    **dict.fromkeys(("model_name", "model_name_or_path", "pretrain", "sft_model"), ("model", "policy")),
    "sft_model_path": ("policy",),
    **dict.fromkeys(
        ("reward_model", "reward_pretrain", "reward_model_path", "reward_model_name_or_path", "reward_funcs",
         "remote_rm_url"), ("reward",)),
    **dict.fromkeys(("dataset_name", "prompt_data"), ("dataset",)),
    **dict.fromkeys(("output_dir", "save_path"), ("out",)),
    "num_train_epochs": ("epochs",),
    **dict.fromkeys(("num_generations", "n_samples_per_prompt", "rloo_k"), ("algorithm.group_size",)),
    **dict.fromkeys(("init_kl_coef", "beta"), ("algorithm.kl_coef",)),
    **dict.fromkeys(("cliprange", "clip_range", "epsilon", "eps_clip"), ("algorithm.clip",)),
    "epsilon_high": ("algorithm.clip_high",),
    "cliprange_value": ("algorithm.value_clip",),
    **dict.fromkeys(("lam", "lambd"), ("algorithm.gae_lambda",)),
    **dict.fromkeys(("num_ppo_epochs", "ppo_epochs"), ("algorithm.epochs",)),
    "num_mini_batches": ("algorithm.minibatches",),
    "critic_learning_rate": ("algorithm.critic_lr",),
    **dict.fromkeys(("max_completion_length", "generate_max_len", "response_length"), ("sampling.max_new_tokens",)),
    **dict.fromkeys(("max_seq_length", "max_seq_len", "cutoff_len", "max_len"), ("data.max_length",)),
    "max_samples": ("data.limit",),
    "warmup_ratio": ("optimizer.warmup_fraction",),
    "lr_warmup_ratio": ("optimizer.warmup_fraction",),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler"), ("optimizer.schedule",)),
    "l2": ("optimizer.weight_decay",),
    "max_norm": ("optimizer.max_grad_norm",),
    **dict.fromkeys(("lora_r", "lora_rank"), ("lora.rank",)),
    "lora_alpha": ("lora.alpha",),
    **dict.fromkeys(("lora_target_modules", "lora_target", "target_modules"), ("lora.targets",)),
    "save_total_limit": ("checkpoint.keep",),
    "max_ckpt_num": ("checkpoint.keep",),
    "overwrite_output_dir": ("overwrite",),
}  # fmt: skip
"""Name -> keys of the settings that mean the same, the first that a job has; used where it has none of that name."""

_MICRO = "--tokens-per-microbatch limits one backward pass in tokens, whatever the batch of an optimizer step"
_LONG = "--iterations is the length of an online run, in batches of rollouts; --epochs that of one on a fixed data set"
_LOGGED = "every step is in metrics.jsonl, and TensorBoard files are written where the package is installed"
_CLUSTER = "leave it out: one process runs all models"
REASONS: dict[str, str] = {
    "per_device_train_batch_size": f"--batch-size counts the whole optimizer step; {_MICRO}",
    "micro_train_batch_size": _MICRO,
    "micro_rollout_batch_size": _MICRO,
    "per_device_eval_batch_size": _MICRO,
    "gradient_accumulation_steps": f"leave it out and raise --batch-size, which counts the whole step; {_MICRO}",
    "train_batch_size": "--minibatches says how many optimizer steps share the responses of an iteration",
    **dict.fromkeys(("max_steps", "steps", "total_episodes", "num_episodes", "max_epochs", "num_train_epochs"), _LONG),
    "num_iterations": "--epochs is the number of passes over each batch of rollouts; " + _LONG,
    "use_peft": "--rank 8 trains adapters; 0 trains all weights",
    "finetuning_type": "--rank 8 trains adapters; 0 trains all weights",
    "lora_dropout": "leave it out: dropout would make old and new log-probs differ",
    "load_in_4bit": "--rank 8 --quantize 4bit",
    "quantization_bit": "--rank 8 --quantize 4bit",
    "load_in_8bit": "--rank 8 --quantize 4bit; there is no 8-bit training",
    "bf16": "--precision bf16",
    "fp16": "--precision bf16, or fp32; fp16 needs a loss scale, and there is none",
    **dict.fromkeys(("report_to", "use_wandb", "use_tensorboard", "logging_dir", "logging_steps", "log_with"), _LOGGED),
    "run_name": "--out names the run directory",
    "save_steps": "--every N, in optimizer steps, or in iterations in online commands",
    "ckpt_path": "checkpoints are in the run directory: --out",
    "resume_from_checkpoint": "--out DIR --resume goes on from the newest checkpoint in the run directory",
    "load_checkpoint": "--out DIR --resume goes on from the newest checkpoint in the run directory",
    "eval_steps": "--eval-every N, in optimizer steps, or in iterations in online commands",
    "eval_strategy": "--eval-every N",
    "val_size": "--eval-fraction is the share of the prompts that is held out",
    "warmup_steps": "--warmup-fraction is a share of the steps",
    "max_prompt_length": "--max-length is for prompt and response together; --max-new-tokens is kept free of it",
    "prompt_max_len": "--max-length is for prompt and response together; --max-new-tokens is kept free of it",
    "loss_type": "--type names the algorithm, --pair-loss the loss of a pair, --aggregation the mean of an online loss",
    "pref_loss": "--pair-loss names the loss of a pair",
    "ref_model": "leave it out: the reference is the model as it was loaded",
    "ref_pretrain": "leave it out: the reference is the policy as it was loaded",
    "critic_pretrain": "--critic reward or sft says what the critic starts from",
    "value_model": "--critic reward or sft says what the critic starts from",
    "vf_coef": "--critic-lr, since a critic of its own has its own optimizer; --value-coef on the policy's trunk",
    "kl_penalty": "--kl-estimator: kl is k1, mse is k2, full is full",
    "adap_kl_ctrl": "--kl-target above 0 makes the coefficient adaptive",
    "target": "--kl-target",
    "advantage_estimator": "each is a command: plaudit ppo, grpo, rloo, reinforce",
    "scale_rewards": "--scale group, batch or none (plaudit grpo); --reward-scaling (plaudit ppo)",
    "eps_clip_low_high": "--clip and --clip-high",
    "apply_chat_template": "leave it out: chats go through the tokenizer's template by themselves",
    "input_key": "leave it out: columns of the usual names are found by themselves; call that of the prompts prompt",
    "template": "leave it out: the template is the tokenizer's own",
    "stage": "each stage is a command: plaudit sft, reward, ppo, dpo",
    "do_train": "leave it out: the command trains",
    "push_to_hub": "leave it out: model/ in the run directory can be uploaded as it stands",
    "deepspeed": _CLUSTER,
    "zero_stage": _CLUSTER,
    "use_vllm": "leave it out: responses are sampled in the same process",
    "vllm_num_engines": "leave it out: responses are sampled in the same process",
    "flash_attn": "leave it out: the attention is chosen by itself",
    "attn_implementation": "leave it out: the attention is chosen by itself",
    "adam_beta1": "leave it out: AdamW has betas 0.9 and 0.95",
    "adam_beta2": "leave it out: AdamW has betas 0.9 and 0.95",
    "torch_dtype": "--precision; weights are fp32 always",
    "mini_batch_size": "--minibatches is the number of optimizer steps in a pass, not their size",
    "query_dataset": "--dataset",
}  # fmt: skip
"""Name -> what to write here; for names that no alias of the job answers."""

COMMANDS = {
    "finetune": "sft", "fine-tune": "sft", "rm": "reward", "reward-model": "reward", "rlhf": "ppo", "train": "sft",
    "eval": "evaluate", "inference": "chat", "bon": "best-of-n", "kto": "dpo", "orpo": "dpo", "simpo": "dpo",
    "ipo": "dpo", "dapo": "grpo", "gspo": "grpo", "remax": "reinforce", "train-ppo": "ppo", "train-sft": "sft",
    "train-rm": "reward", "train-reward-model": "reward", "train-dpo": "dpo", "train-kto": "dpo",
}  # fmt: skip
"""What other tools call a command, and ours."""
