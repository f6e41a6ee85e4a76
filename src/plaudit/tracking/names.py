# ruff: noqa: E501  (a table reads best with one row per line)
"""Every metric: what it is, its unit, and how it looks in a healthy run. The one table of names.

A metric has a range where one holds for every task (a share that should be near 1, a KL that should stay small). Where
the value depends on the task, ``usual`` says how it moves. Sources of the ranges: Huang et al. (the implementation
details of PPO), Zheng et al. (arXiv:2307.04964), Gao et al. (arXiv:2210.10760). A value outside its range is a reason
to look, and no proof that something is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``low`` and ``high`` bound the healthy range; ``None`` means no bound on that side.

    ``usual`` says in words how a healthy run looks where there is no bound.
    """

    name: str
    label: str
    """Title of its curve."""
    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    usual: str = ""

    @property
    def healthy(self) -> str:
        """The range, or what is usual, in words.

        >>> Metric("a", "A", "...", low=0.02, high=0.2).healthy, Metric("b", "B", "...", usual="rises").healthy
        ('0.02 to 0.2', 'rises')
        """
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"above {self.low:g}"
        return f"below {self.high:g}" if self.high is not None else self.usual

    def is_healthy(self, value: float) -> bool:
        """Whether ``value`` is inside the range, ends included."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


_TABLE = (
    Metric("loss", "Loss", "What the optimizer minimises, mean over the optimizer step.", "nats", usual="falls"),
    Metric("lr", "Learning rate", "Learning rate of this step.", usual="follows the schedule"),
    Metric("grad_norm", "Gradient norm", "Global norm of the gradient before it is clipped.", "", None, 10.0),
    Metric("steps_skipped", "Steps not taken", "Optimizer steps left out: the gradient was not finite, the mean ratio was over 10 (PPO), or nothing counted in the loss.", "share", None, 0.01),
    Metric("reward/mean", "Reward", "Mean reward of the iteration's responses, before scaling and KL penalty.", usual="rises"),
    Metric("reward/std", "Reward spread", "Standard deviation of the reward over responses; at 0 nothing can be learned.", "", 1e-6),
    Metric("reward/raw_mean", "Raw reward", "Mean output of the reward before normalisation.", usual="rises"),
    Metric("reward/error_share", "Failed rewards", "Responses whose reward raised an error or was not finite.", "share", None, 0.05),
    Metric("objective/kl", "KL to the reference", "Sum over the response of log policy − log reference, mean over responses.", "nats per response", None, 10.0),
    Metric("objective/kl_coef", "KL coefficient", "Weight of the KL in the reward or the loss.", usual="constant, or moved toward kl_target"),
    Metric("objective/kl_coef_in_force", "KL coefficient in force", "The same in units of the reward as reward/mean has them: times what the reward is divided by and the KL is not. The policy tends to reference x exp(reward / this), normalised.", usual="near objective/kl_coef, unless rewards are scaled"),
    Metric("objective/kl_tok", "KL per token", "The same KL per response token.", "nats per token", None, 0.5),
    Metric("objective/kl_full", "Exact KL", "KL to the reference summed over the vocabulary along the responses: the same mean as objective/kl, less noise, never negative.", "nats per response", 0.0, 10.0),
    Metric("objective/entropy", "Sampled entropy", "Mean of -log-probability summed over the response.", "nats per response", usual="falls slowly"),
    Metric("objective/perplexity", "Perplexity", "Of the responses under the policy that sampled them.", usual="falls slowly"),
    Metric("objective/ref_perplexity", "Reference perplexity", "Of the responses under the reference: a rise by half points to gibberish, a fall to a half to bland text.", usual="between half and 1.5 times its start"),
    Metric("objective/scores", "Scores as used", "Rewards after the missing-EOS treatment, scaling and clipping.", usual="rises"),
    Metric("objective/scores_std", "Spread of the scores", "Standard deviation of the scores as used.", "", 1e-6),
    Metric("objective/rlhf_reward", "Reward minus KL penalty", "What PPO maximises: scaled reward minus KL penalty.", usual="rises"),
    Metric("objective/non_score_reward", "KL penalty", "The KL's part of the reward, negative.", usual="small beside the spread of the reward"),
    Metric("policy/loss", "Policy loss", "Clipped surrogate; near 0 when advantages are whitened, and no measure of progress.", usual="about 0"),
    Metric("policy/entropy", "Entropy", "Entropy of the next-token distribution over the full vocabulary, mean over response tokens.", "nats per token", 0.1),
    Metric("policy/entropy_coef", "Entropy coefficient", "Weight of the entropy bonus, where entropy_target has a step by which it adapts.", usual="moved as far as the entropy needs"),
    Metric("policy/clip_fraction", "Clip fraction", "Response tokens on which the clipped loss was the larger one.", "share", None, 0.4),
    Metric("policy/clip_fraction_low", "Clipped below", "Response tokens clipped at the lower bound of the ratio (advantage below 0).", "share", None, 0.4),
    Metric("policy/clip_fraction_high", "Clipped above", "Response tokens clipped at the upper bound of the ratio (advantage above 0).", "share", None, 0.4),
    Metric("policy/dual_clip_fraction", "Dual clip fraction", "Response tokens whose loss was bounded by the dual clip.", "share", None, 0.1),
    Metric("policy/approx_kl", "Policy step", "KL from the policy that sampled to the updated one (estimator k3).", "nats per token", None, 0.03),
    Metric("policy/kl_k1", "Policy step, signed", "The same by estimator k1: mean of old minus new log-probability.", "nats per token", -0.03, 0.03),
    Metric("policy/kl_loss", "KL in the loss", "The KL to the reference as a term of the loss, before its coefficient.", "nats per token", None, 0.5),
    Metric("policy/ptx_loss", "Loss on texts to keep", "Mean negative log-likelihood of ptx_dataset; a rise means forgetting.", "nats per token", usual="about constant"),
    Metric("policy/ratio_mean", "Mean ratio", "Mean of new over old probability; far from 1 means a bug or too large a step.", "", 0.8, 1.25),
    Metric("policy/ratio_var", "Spread of the ratio", "Mean squared distance of the ratio from 1.", "", None, 0.1),
    Metric("policy/ratio_max", "Largest ratio", "Largest ratio of new to old probability on a response token.", "", None, 10.0),
    Metric("policy/advantages_mean", "Mean advantage", "Before whitening.", usual="about 0"),
    Metric("policy/advantages_std", "Advantage spread", "Before whitening.", "", 1e-6),
    Metric("policy/advantages_used_mean", "Mean advantage used", "After whitening and clipping; 0 where whitened and not clipped.", usual="about 0"),
    Metric("policy/advantages_used_std", "Advantage spread used", "After whitening and clipping; 1 where whitened and not clipped.", "", 1e-6),
    Metric("policy/steps", "Policy steps", "Optimizer steps of the policy in this iteration; 0 while the critic warms up.", "steps", usual="epochs x minibatches"),
    Metric("policy/stopped_early", "Stopped early", "1 where the inner epochs stopped because the policy had moved as far as it may.", "share", usual="mostly 0"),
    Metric("policy/empty_share", "Steps without data", "Steps of the iteration that were not taken because no response was left to learn from: all of a prompt were rewarded alike, or scoring failed, or they were filtered.", "share", None, 0.2),
    Metric("group/std_mean", "Spread within groups", "Standard deviation of the score among responses to one prompt, mean over prompts.", "", 1e-6),
    Metric("group/zero_std_share", "Groups without a signal", "Prompts whose responses all scored the same, so that they have no gradient.", "share", None, 0.6),
    Metric("dyn/kept_share", "Groups kept", "Sampled groups with unequal rewards, the ones that are learned from.", "share", 0.3),
    Metric("dyn/rounds", "Sampling rounds", "Batches of prompts sampled for this iteration; at sampling_rounds the batch may be short.", "rounds", usual="below sampling_rounds"),
    Metric("dyn/reward_mean", "Reward of kept groups", "Mean reward of what is learned from: biased to prompts of middling difficulty, unlike reward/mean.", usual="rises"),
    Metric("critic/loss", "Critic loss", "Clipped squared error of the critic, halved.", usual="falls, then about constant"),
    Metric("critic/explained_variance", "Explained variance", "1 − Var(return − value) / Var(return): 1 is a perfect critic.", "", 0.0),
    Metric("critic/error", "Critic error", "Mean squared difference of value and return, before this iteration's updates.", usual="falls"),
    Metric("critic/clip_fraction", "Critic clip fraction", "Response tokens on which the value clip was active.", "share", None, 0.4),
    Metric("critic/grad_norm", "Critic gradient norm", "Global norm of the critic's gradient before it is clipped.", "", None, 10.0),
    Metric("critic/value_mean", "Mean value", "What the critic expects, mean over response tokens.", usual="near critic/returns_mean"),
    Metric("critic/value_std", "Spread of the values", "Standard deviation over response tokens.", usual="below critic/returns_std"),
    Metric("critic/returns_mean", "Mean return", "What the critic is trained to predict.", usual="rises"),
    Metric("critic/returns_std", "Spread of the returns", "Standard deviation over response tokens; about 1 with normalised rewards.", "", 1e-6),
    Metric("response/length_mean", "Response length", "Mean length of the responses, end token included.", "tokens", usual="within a half of its start"),
    Metric("response/length_max", "Longest response", "Length of the longest response.", "tokens", usual="below max_new_tokens"),
    Metric("response/eos_rate", "Stops by itself", "Responses that ended on their own instead of at the length limit.", "share", 0.95),
    Metric("response/turns_mean", "Turns of the policy", "Mean number of turns that the policy wrote, where an environment replies.", usual="above 1 where the environment is of use"),
    Metric("response/environment_tokens_mean", "Tokens of the environment", "Mean number of tokens in a row that the environment wrote.", "tokens", usual="about constant"),
    Metric("response/aborted_share", "Aborted rollouts", "Rollouts that ended because the environment failed; they are not scored.", "share", None, 0.05),
    Metric("response/length_std", "Spread of the length", "Standard deviation of the length over responses.", "tokens", usual="not 0"),
    Metric("eval/reward_mean", "Held-out reward", "Mean reward on held-out prompts.", usual="rises with reward/mean"),
    Metric("eval/gold_mean", "Held-out gold reward", "Mean gold reward, which is never trained on, on held-out prompts.", usual="rises with eval/reward_mean"),
    Metric("eval/kl", "Held-out KL", "KL to the reference on held-out prompts.", "nats per response", None, 10.0),
    Metric("eval/length_mean", "Held-out length", "Mean length of the responses to held-out prompts.", "tokens", usual="within a half of its start"),
    Metric("eval/loss", "Held-out loss", "The loss on rows that are never trained on.", "nats", usual="falls with loss"),
    Metric("rollout/logprob_diff_mean", "Mean sampler mismatch", "Mean gap between sampled and trainer's log-probabilities.", "nats", None, 0.05),
    Metric("rollout/logprob_diff_max", "Sampler mismatch", "Largest gap between a sampled log-probability and the trainer's own.", "nats", None, 0.1),
    Metric("rollout/rescored_share", "Rescored by the trainer", "1: the trainer scored all rows for the old log-probabilities; 0: those of the sampler were taken, see reuse_below.", "share", usual="0 or 1"),
    Metric("rollout/mismatch_kl", "Sampler KL", "KL from the distribution that sampled to the trainer's (estimator k3).", "nats per token", None, 0.01),
    Metric("rollout/effective_share", "Effective samples", "Effective sample size of the mismatch weights over the number of tokens.", "share", 0.5),
    Metric("rollout/weight_max", "Largest mismatch weight", "Largest trainer's over sampler's probability, before any bound.", "", None, 10.0),
    Metric("rollout/truncated_share", "Truncated weights", "Tokens whose mismatch weight was over the bound.", "share", None, 0.01),
    Metric("rollout/dropped_share", "Responses dropped", "Responses left out because sampler and trainer were too far apart.", "share", None, 0.1),
    Metric("reward_model/accuracy", "Accuracy", "Pairs of the step whose chosen response scores higher, ties 1/2.", "share", 0.5),
    Metric("reward_model/heldout_accuracy", "Held-out accuracy", "The same on pairs of held-out prompts.", "share", 0.5),
    Metric("reward_model/margin", "Margin", "Mean score of chosen minus rejected.", "", 0.0),
    Metric("reward_model/squared_error", "Squared error", "Of the score against standardised ratings, of each quality as reward_model/squared_error/NAME too; 1 is reached by always predicting the mean.", "", None, 1.0),
    Metric("reward_model/lm_loss", "Token loss of chosen", "Negative log-likelihood of the chosen responses, where the reward model keeps its LM head.", "nats per token", usual="falls"),
    Metric("reward/ensemble_std", "Disagreement of the ensemble", "Standard deviation of the members' normalised scores, mean over responses; a rise over 1.5 times that on held-out pairs is a sign of over-optimisation.", "", None, 1.5),
    Metric("reward_model/chosen_mean", "Score of chosen", "Mean score of the chosen responses.", usual="above reward_model/rejected_mean"),
    Metric("reward_model/rejected_mean", "Score of rejected", "Mean score of the rejected responses.", usual="below reward_model/chosen_mean"),
    Metric("rewards/chosen", "Implicit reward of chosen", "beta times log policy over reference of chosen responses (without a reference: of the log-probability). Falling far means that the policy forgets good responses.", "", -1.0),
    Metric("rewards/rejected", "Implicit reward of rejected", "The same of the rejected responses.", usual="below rewards/chosen"),
    Metric("rewards/margins", "Implicit margin", "Chosen minus rejected. Growing while the held-out accuracy falls is overfitting.", "", 0.0),
    Metric("rewards/accuracies", "Ranked right", "Pairs of the step whose chosen response has the higher implicit reward, ties 1/2; for kto responses on their side of the zero point.", "share", 0.5),
    Metric("logps/chosen", "Log-probability of chosen", "Sum over the response, mean over chosen responses.", "nats per response", usual="about constant, or rises"),
    Metric("logps/rejected", "Log-probability of rejected", "Sum over the response, mean over rejected responses.", "nats per response", usual="falls"),
    Metric("policy/nll_chosen", "Imitation loss", "Mean negative log-likelihood per token of chosen responses (orpo).", "nats per token", usual="falls"),
    Metric("policy/log_odds_ratio", "Log odds ratio", "Log odds of chosen minus log odds of rejected responses (orpo).", "", 0.0),
    Metric("objective/mismatched_kl", "Zero point", "log policy over reference of other prompts' responses, at least 0 (kto).", "nats per response", None, 10.0),
    Metric("eval/accuracy", "Held-out accuracy", "Held-out pairs that the implicit reward ranks right, ties 1/2.", "share", 0.5),
    Metric("eval/margin", "Held-out margin", "Implicit margin on held-out pairs.", "", 0.0),
    Metric("eval/logp_chosen", "Held-out log-probability of chosen", "Sum over the response, mean over held-out chosen responses.", "nats per response", usual="about constant, or rises"),
    Metric("eval/logp_rejected", "Held-out log-probability of rejected", "Sum over the response, mean over held-out rejected responses.", "nats per response", usual="falls"),
    Metric("pairs/kept_share", "Prompts with a pair", "Prompts whose responses were not all scored alike, and so made a pair (online_dpo).", "share", 0.5),
    Metric("pairs/score_gap", "Score gap", "Mean score of the best minus the worst response of a pair (online_dpo).", usual="above 0, falls slowly"),
    Metric("rs/mean", "Reward of one sample", "Mean reward of all sampled responses.", usual="rises from round to round"),
    Metric("rs/best_mean", "Reward of the best", "Mean over prompts of the best response's reward.", usual="above rs/mean"),
    Metric("rs/gain", "Gain of the best", "Reward of the best minus reward of one sample; 0 leaves nothing to learn.", "", 1e-6),
    Metric("rs/accept_rate", "Responses kept", "Responses of the round that were kept, of those sampled.", "share", usual="a few in a hundred or more"),
    Metric("rs/kept", "Kept responses", "Responses that the round trained on, those of earlier rounds included.", "responses", 1.0),
    Metric("rs/kl_bound", "KL of the best of n", "log n - (n - 1) / n: the most that best-of-n is away from the policy it samples from.", "nats per response", usual="fixed by n"),
    Metric("rs/length_gain", "Length of the best", "Tokens of the best response minus mean tokens: far from 0, the reward likes (or dislikes) length.", "tokens", -20.0, 20.0),
    Metric("throughput/tokens_per_second", "Throughput", "Tokens trained on or generated, per second of the whole step.", "tokens/s", usual="constant"),
    Metric("time/generate", "Time to generate", "Sampling responses.", "s", usual="constant"),
    Metric("time/reward", "Time to reward", "The reward on the new responses.", "s", usual="constant"),
    Metric("time/score", "Time to score", "Log-probabilities of policy and reference, values of the critic.", "s", usual="constant"),
    Metric("time/update", "Time to update", "Forward and backward passes, optimizer.", "s", usual="constant"),
    Metric("time/evaluate", "Time to evaluate", "Sampling and scoring the held-out prompts, where an iteration does.", "s", usual="constant, at most a fifth of all"),
    Metric("time/publish", "Time to publish", "Handing the new weights to the generator.", "s", usual="constant"),
    Metric("memory/peak", "Peak memory", "The most that was ever allocated on the GPU; on a CPU the most the process had resident.", "GB", usual="constant after the first steps"),
    Metric("memory/policy", "Memory of the policy", "Its tensors, shared ones included, and for what is trained gradient and AdamW moments. Once a run, in summary.json and the event memory.", "GB", usual="constant"),
    Metric("memory/reference", "Memory of the reference", "What only the reference has; 0 under LoRA, where it is the policy without adapters.", "GB", usual="constant"),
    Metric("memory/critic", "Memory of the critic", "What only the critic has, gradient and moments included; under LoRA its adapters and head.", "GB", usual="constant"),
    Metric("memory/reward", "Memory of the reward", "What only the reward's models have; on the policy's base their adapters and heads.", "GB", usual="constant"),
    Metric("memory/gold", "Memory of the gold reward", "What only the gold reward's models have.", "GB", usual="constant"),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}


def unhealthy(values: dict[str, float]) -> list[Metric]:
    """The metrics among ``values`` that are outside their healthy range, in the order of the table.

    >>> [metric.name for metric in unhealthy({"objective/kl": 14.0, "policy/entropy": 2.0, "my/own": 1.0})]
    ['objective/kl']
    """
    return [m for name, m in METRICS.items() if name in values and not m.is_healthy(values[name])]


def reference_table() -> str:
    """All metrics as a Markdown table, for the reference documentation."""
    rows = ["| metric | what it is | unit | healthy |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.meaning} | {m.unit} | {m.healthy} |" for m in METRICS.values()]
    return "\n".join(rows) + "\n"
