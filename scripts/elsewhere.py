# ruff: noqa: E501  (a table reads best with one row a line)
"""The page about names of other tools: settings, columns and metrics, with ours.

What a name means here stands in `plaudit.config.foreign`, `plaudit.data.reading.names` and `plaudit.tracking.names`. This
file only says which tool has which name. TRL's are compared with TRL itself by a test; the others were looked up in
the sources and the documentation of the tools.
"""

from __future__ import annotations

import re
from functools import cache

from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import Setting, find, settings
from plaudit.config.foreign import ALIASES, REASONS
from plaudit.data.reading.names import AXES, NAMES
from plaudit.jobs.registry import COMMANDS

TOOLS: dict[str, str] = {
    "TRL 1.12": """model_name_or_path dataset_name dataset_train_split output_dir learning_rate num_train_epochs max_steps
        per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps warmup_steps
        lr_scheduler_type weight_decay max_grad_norm seed bf16 fp16 dtype gradient_checkpointing logging_steps report_to run_name
        save_steps save_total_limit eval_steps eval_strategy resume_from_checkpoint push_to_hub deepspeed attn_implementation
        use_peft lora_r lora_alpha lora_dropout lora_target_modules load_in_4bit load_in_8bit max_length completion_only_loss
        assistant_only_loss padding_free dataset_num_proc remove_unused_columns precompute_ref_log_probs sync_ref_model loss_type
        beta label_smoothing desirable_weight undesirable_weight center_rewards_coefficient num_generations
        max_completion_length generation_batch_size steps_per_generation num_iterations epsilon epsilon_high scale_rewards
        reward_weights mask_truncated_completions importance_sampling_level use_vllm vllm_mode temperature top_p top_k min_p
        reward_model_path sft_model_path total_episodes num_ppo_epochs num_mini_batches mini_batch_size response_length
        missing_eos_penalty kl_coef kl_estimator cliprange cliprange_value vf_coef gamma lam whiten_rewards num_sample_generations
        local_rollout_forward_batch_size""",
    "TRL 0.x, PPOConfig": """model_name query_dataset reward_model steps learning_rate batch_size mini_batch_size
        forward_batch_size gradient_accumulation_steps ppo_epochs adap_kl_ctrl init_kl_coef kl_penalty target horizon gamma lam
        cliprange cliprange_value vf_coef max_grad_norm target_kl use_score_scaling use_score_norm whiten_rewards log_with
        tracker_project_name remove_unused_columns optimize_cuda_cache seed""",
    "OpenRLHF": """pretrain reward_pretrain remote_rm_url ref_pretrain critic_pretrain save_path ckpt_path prompt_data prompt_split
        apply_chat_template rollout_batch_size train_batch_size micro_train_batch_size micro_rollout_batch_size n_samples_per_prompt
        num_episodes max_epochs prompt_max_len generate_max_len max_len max_samples actor_learning_rate critic_learning_rate
        lr_warmup_ratio lr_scheduler l2 max_norm eps_clip eps_clip_low_high dual_clip value_clip gamma lambd init_kl_coef
        kl_target kl_horizon kl_estimator use_kl_loss advantage_estimator policy_loss_type no_advantage_std_norm normalize_reward
        reward_clip_range ptx_coef entropy_loss_coef overlong_buffer_len dynamic_filtering freezing_actor_steps adam_betas
        temperature top_p seed lora_rank lora_alpha lora_dropout target_modules load_in_4bit bf16 flash_attn attn_implementation
        gradient_checkpointing packing_samples train_max_tokens_per_gpu zero_stage vllm_num_engines vllm_tensor_parallel_size
        async_train eval_steps save_steps logging_steps max_ckpt_num load_checkpoint use_wandb wandb_project wandb_run_name
        use_tensorboard""",
    "LLaMA-Factory": """model_name_or_path stage do_train finetuning_type lora_rank lora_alpha lora_dropout lora_target
        quantization_bit dataset template cutoff_len max_samples preprocessing_num_workers overwrite_cache output_dir
        overwrite_output_dir logging_steps save_steps plot_loss per_device_train_batch_size gradient_accumulation_steps
        learning_rate num_train_epochs lr_scheduler_type warmup_ratio bf16 val_size eval_strategy eval_steps report_to flash_attn
        deepspeed reward_model ref_model pref_beta pref_loss dpo_label_smoothing kto_chosen_weight kto_rejected_weight ppo_epochs
        ppo_buffer_size ppo_score_norm ppo_target ppo_whiten_rewards""",
    "verl": " ".join(name for name in (*ALIASES, *REASONS) if "." in name),
}
"""Tool -> its names, each understood or answered here."""

DATA: tuple[tuple[str, str, str, str], ...] = (
    ("TRL", "language modeling", '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}', "demonstration"),
    ("TRL", "prompt-only", '{"prompt": "The sky is"}', "prompt"),
    ("TRL", "prompt-completion", '{"prompt": "The sky is", "completion": " blue."}', "demonstration"),
    ("TRL", "preference", '{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}', "preference"),
    ("TRL", "preference, implicit prompt", '{"chosen": "The sky is blue.", "rejected": "The sky is green."}', "preference"),
    ("TRL", "unpaired preference", '{"prompt": "The sky is", "completion": " blue.", "label": true}', "rating"),
    ("OpenRLHF", "prompts, `--input_key`", '{"context_messages": [{"role": "user", "content": "Hi"}]}', "prompt"),
    ("LLaMA-Factory", "alpaca", '{"instruction": "Name a colour.", "input": "", "output": "Blue."}', "demonstration"),
    ("LLaMA-Factory", "alpaca, preference", '{"instruction": "Name a colour.", "input": "", "chosen": "Blue.", "rejected": "Cat."}', "preference"),
    ("LLaMA-Factory", "sharegpt", '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}', "demonstration"),
    ("verl", "RL prompts", '{"data_source": "gsm8k", "prompt": [{"role": "user", "content": "1 + 1?"}], "reward_model": {"style": "rule", "ground_truth": "2"}}', "prompt"),
)
"""Tool, its name of the layout, a row, and the kind as which it is read."""

METRICS: tuple[tuple[str, str, str], ...] = (
    ("`objective/kl`, `ref_kl` (TRL, MOSS)", "`objective/kl`", ""),
    ("`actor/reward_kl_penalty` (verl)", "`objective/kl_tok`", "per token: a target copied from there differs by a factor of the length"),
    ("`objective/entropy`", "`objective/entropy`", "TRL subtracts 1 nat for each padded position"),
    ("`objective/scores`, `rewards`", "`reward/mean`, `reward/std`", "as returned by the reward; `objective/scores` is after penalty, scale and clip"),
    ("`objective/non_score_reward`", "`objective/non_score_reward`", ""),
    ("`objective/rlhf_reward`, `score_total`", "`objective/rlhf_reward`", ""),
    ("`policy/approxkl_avg`", "`policy/approx_kl`", "k3 here; TRL's is half the mean square"),
    ("`policy/policykl`, `actor/ppo_kl`", "`policy/kl_k1`", ""),
    ("`policy/clipfrac_avg`, `actor/pg_clipfrac`, `clip_ratio/region_mean`", "`policy/clip_fraction`", ""),
    ("`clip_ratio/low_mean`, `clip_ratio/high_mean`", "`policy/clip_fraction_low`, `policy/clip_fraction_high`", ""),
    ("`actor/pg_clipfrac_lower`", "`policy/dual_clip_fraction`", ""),
    ("`policy/entropy_avg`, `actor/entropy`", "`policy/entropy`", "over the whole vocabulary"),
    ("`val/ratio`, `val/ratio_var`", "`policy/ratio_mean`, `policy/ratio_var`, `policy/ratio_max`", ""),
    ("`policy/advantages_mean`", "`policy/advantages_mean`, `policy/advantages_used_mean`", "before and after whitening"),
    ("`loss/policy_avg`, `actor/pg_loss`", "`policy/loss`", ""),
    ("`loss/value_avg`, `critic/vf_loss`", "`critic/loss`", "with its half"),
    ("`loss/total`", "`loss`", "the policy's; the critic has an optimizer of its own"),
    ("`loss/ptx`", "`policy/ptx_loss`", "before its weight"),
    ("`val/clipfrac_avg`, `critic/vf_clipfrac`", "`critic/clip_fraction`", ""),
    ("`val/var_explained`, `critic/vf_explained_var`", "`critic/explained_variance`", "of variances, not of squared errors"),
    ("`val/vpred`, `val/error`", "`critic/value_mean`, `critic/error`", ""),
    ("`returns/mean`, `returns/var`", "`critic/returns_mean`, `critic/returns_std`", "the root of the variance"),
    ("`tokens/responses_len_mean`, `completions/mean_length`", "`response/length_mean`, `response/length_std`", "end token included"),
    ("`val/num_eos_tokens`, `completions/clipped_ratio`, `response_length/clip_ratio`", "`response/eos_rate`", "share that ended with an end token: 1 minus the clipped share"),
    ("`sampling/importance_sampling_ratio`, `training/rollout_probs_diff_mean`", "`rollout/logprob_diff_mean`, `rollout/weight_max`, `rollout/effective_share`", "logged whether corrected or not"),
    ("`frac_reward_zero_std`, `reward_std` (GRPO)", "`group/zero_std_share`, `group/std_mean`", ""),
    ("`ppl`, `ppl_policy0` (MOSS)", "`objective/perplexity`, `objective/ref_perplexity`", ""),
    ("`grad_norm/actor`, `grad_norm/critic`", "`grad_norm`, `critic/grad_norm`", "before clipping"),
    ("`timing_s/*`", "`time/generate`, `time/reward`, `time/score`, `time/update`", ""),
    ("`eps` (episodes a second)", "`throughput/tokens_per_second`", "episodes are the step times the responses of an iteration"),
    ("`train/rm/accuracy`, `train/rm/reward_margin`", "`reward_model/accuracy`, `reward_model/margin`", "ties count a half"),
    ("`train/rm/chosen_rewards`, `train/rm/rejected_rewards`", "`reward_model/chosen_mean`, `reward_model/rejected_mean`", "raw, not normalised"),
    ("`rewards/chosen`, `rewards/margins`, `logps/chosen` (DPO)", "`rewards/chosen`, `rewards/margins`, `logps/chosen`", ""),
)
"""Names elsewhere, ours, and what differs."""

HEAD = """\
# Names of other tools, and ours

Other tools' flags work on the command line of Plaudit where the meaning and the unit are the same, with dashes or
underscores; every other one of these is answered with what to write instead, before anything is loaded.
`plaudit.PPO(cliprange=0.2)` in Python says the name to use as well. Moving a whole script:
[from `PPOTrainer`](../howto/from-ppotrainer.md); which tool for what: [what to pick when](../howto/choose.md).
"""
NO_METRICS = """\
No name is used for two units: sums over a response (`objective/kl`) and means over tokens (`objective/kl_tok`). Means are over
response tokens that count, never over padding. [All metrics](metrics.md) with their meaning and healthy range.
"""
NOT_RECORDED = """\
Not recorded: `logits/chosen` and `logits/rejected` of DPO trainers. The mean of the logits is no property of the policy: a constant
added to all logits of a token changes it and no probability. `logps/chosen` has the information that they are used for.
"""


def names_of(tool: str) -> list[str]:
    """The settings of a tool that the page lists, in its order."""
    return TOOLS[tool].split()


@cache
def tables() -> dict[str, list[tuple[Setting, ...]]]:
    """Command -> the settings of each of its algorithms."""
    return {
        row.name: [settings(specialise(row.job, kind, "")) for kind in types(row.job)] for row in COMMANDS.values()
    }


def meaning(name: str) -> tuple[list[str], str]:
    """The flags that a name of another tool stands for here, each with its commands, and what is said otherwise."""
    flags: dict[str, list[str]] = {}
    missing = False
    for command, variants in tables().items():
        here = {s.flag for table in variants for s in [find(name, table)] if s}
        missing |= not here
        for flag in sorted(here):
            flags.setdefault(flag, []).append(command)
    every = len(flags) == 1 and not missing
    shown = [f"`{flag}`" if every else f"`{flag}` ({', '.join(commands)})" for flag, commands in flags.items()]
    last = name.rpartition(".")[2]
    return shown, REASONS.get(name, REASONS.get(last, "")) if missing else ""


def page(note: str) -> str:
    """The page, from the tables in the code."""
    parts = [note + HEAD]
    for tool in TOOLS:
        lines = []
        for name in names_of(tool):
            flags, reason = meaning(name)
            reason = re.sub(r"(--[a-z][a-z-]*)", r"`\1`", reason)
            said = f"{'else: ' if flags else ''}{reason}" if reason else ""
            lines.append(f"| `{name}` | {'; '.join([*flags, *([said] if said else [])])} |")
        parts.append(f"## {tool}\n\n| there | here |\n|---|---|\n" + "\n".join(lines) + "\n")
    rows = [f"| {tool} | {layout} | `{row}` | {kind} |" for tool, layout, row, kind in DATA]
    about = "Read as they stand; `plaudit data check FILE` says as what. Other columns are named with `--field prompt=NAME`.\n"
    parts.append(f"## Data\n\n{about}\n| tool | its layout | a row | read as |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    parts.append(_columns())
    metrics = "\n".join(f"| {there} | {here} | {differs} |" for there, here, differs in METRICS)
    table = f"| elsewhere | here | difference |\n|---|---|---|\n{metrics}\n"
    parts.append(f"## Metrics\n\n{NO_METRICS}\n{table}\n{NOT_RECORDED}")
    return "\n".join(parts)


def _columns() -> str:
    rows = []
    for field, names in NAMES.items():
        others = [*names.own[1:], *names.usual, *names.last, *(f"{name} (in some layouts)" for name in names.late)]
        if field not in AXES and others:
            rows.append(f"| {field.replace('_', ' ')} | {', '.join(f'`{n}`' for n in names.own[:1])} | {', '.join(others)} |")
    head = "| field | our name | also read as it |\n|---|---|---|\n"
    about = "In any case, with spaces, dashes or underscores. Two columns that may both be one field are refused.\n"
    return f"## Columns\n\n{about}\n{head}" + "\n".join(rows) + "\n"
