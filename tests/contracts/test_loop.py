"""The online loop on other backends: the same bits as in one process; and what a generator with old weights meets."""

import contextlib

import pytest
import torch
from tests.contracts.other_backends import OwnCopy, ProcessLearner, build

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.learner import LocalScorer
from plaudit.config.sections import OptimizerSection, SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import TrainingError
from plaudit.evaluation.alarms.sampler import SamplerWatch
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import GRPOJob
from plaudit.models.files.load import load_tokenizer
from plaudit.models.policy import ReferencePolicy
from plaudit.records import Prompt, RewardResult
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.stages.best_of_n.parts import sampled
from plaudit.stages.online.evaluation import Evaluator
from plaudit.training.online import OnlineLoop

PROMPTS = [TokenPrompt(Prompt(f"p{i}", "x"), (2, 9 + i, 10)) for i in range(6)]
CRITIC = OptimizerSection(lr=0.01, schedule="constant", warmup_fraction=0.0)
ALGORITHMS = {
    "ppo": PPO(critic_warmup=1, epochs=2, minibatches=2),
    "grpo": GRPO(group_size=4),
}


def section(lr):
    return OptimizerSection(lr=lr, schedule="linear", warmup_fraction=0.0)


def counts_a_token(rollouts):
    return [RewardResult(float(r.response_ids.count(12)) - 0.1 * len(r.response_ids)) for r in rollouts]


def train(algorithm, model, iterations, make_learner=build, lr=0.01, **broken):
    """Weights, metrics of each iteration, and alarms, of a run on one backend."""
    steps = iterations * algorithm.epochs * algorithm.minibatches
    start, tokenizer = build(model, "policy", section(lr), steps), load_tokenizer(model)
    remote = make_learner is not build
    learner = make_learner(model, "policy", section(lr), steps) if remote else start
    critic = make_learner(model, "critic", CRITIC, steps) if "values" in algorithm.needs else None
    generator = (
        OwnCopy(start.module, tokenizer, (3,), **broken)
        if remote or broken
        else NativeGenerator(start.module.lm, tokenizer, (3,))
    )
    reference = LocalScorer(ReferencePolicy(start.module), start.compute)
    history, alarms, watch = [], [], SamplerWatch()

    def after(iteration, metrics, rollouts):
        history.append({k: v for k, v in metrics.items() if not k.startswith(("time", "throughput"))})
        alarms.extend((iteration, alarm.kind) for alarm in watch.look(metrics))

    loop = OnlineLoop(
        algorithm, Runtime(generator, learner, reference, counts_a_token, critic), PROMPTS,
        SamplingSection(max_new_tokens=6), 4, 0, 1, after,
    )  # fmt: skip
    try:
        loop.run(iterations)
        weights = learner.weights().tensors()
        if critic is not None:
            weights |= {f"critic/{name}": tensor for name, tensor in critic.weights().tensors().items()}
    finally:
        for each in (learner, critic):
            if isinstance(each, ProcessLearner):
                each.close()
    return weights, history, alarms


@pytest.mark.parametrize("name", ALGORITHMS)
def test_another_process_and_a_copy_of_the_weights_give_the_same_bits(name, tiny_model):
    here, ours, _ = train(ALGORITHMS[name], tiny_model, 4)
    there, theirs, alarms = train(ALGORITHMS[name], tiny_model, 4, ProcessLearner)
    assert ours == theirs and not alarms
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_a_generator_that_says_its_old_version_is_refused(tiny_model):
    with pytest.raises(TrainingError, match="weights of iteration 0, and the policy has had 1") as caught:
        train(ALGORITHMS["grpo"], tiny_model, 4, hears=False)
    assert "iteration 2" in caught.value.where and "publish" in caught.value.cure


def test_a_generator_that_hides_its_old_weights_raises_an_alarm(tiny_model):
    """It claims the new version and draws from the start: only the importance weights can show it."""
    _, history, alarms = train(ALGORITHMS["grpo"], tiny_model, 12, lr=0.05, hears=False, honest=False)
    assert "stale" in [kind for _, kind in alarms]
    assert min(row["rollout/effective_share"] for row in history) < 0.5
    _, history, alarms = train(ALGORITHMS["grpo"], tiny_model, 12, lr=0.05)
    assert not alarms and min(row["rollout/effective_share"] for row in history) > 0.99


def test_an_evaluation_by_old_weights_is_refused(tiny_model, tmp_path):
    """A row says after which iteration it is, and the best weights are chosen by it."""
    policy = build(tiny_model, "policy", section(0.01), 4)
    tokenizer = load_tokenizer(tiny_model)
    generator = OwnCopy(policy.module, tokenizer, (3,), hears=False)
    machines = Runtime(generator, policy, policy, counts_a_token)
    job = GRPOJob(policy=str(tiny_model), dataset="x", sampling=SamplingSection(max_new_tokens=4))
    for allowed in (0, 1):
        with Recorder(tmp_path / str(allowed), command="grpo") as recorder:
            chat = ChatFormat(tokenizer, "none")
            evaluator = Evaluator(recorder.run_dir, machines, PROMPTS, job, chat, recorder, allowed)
            evaluator.evaluate(0)
            with contextlib.nullcontext() if allowed else pytest.raises(TrainingError, match="weights of iteration 0"):
                evaluator.evaluate(1)


def test_a_round_of_best_of_n_by_old_weights_is_refused(tiny_model, tmp_path):
    policy = build(tiny_model, "policy", section(0.01), 4)
    generator = OwnCopy(policy.module, load_tokenizer(tiny_model), (3,), hears=False)
    machines = Runtime(generator, policy, policy, counts_a_token)
    job = BestOfNJob(policy=str(tiny_model), dataset="x", rounds=2, sampling=SamplingSection(max_new_tokens=4))
    with Recorder(tmp_path, command="best-of-n") as recorder:
        keeper = Keeper(tmp_path, job.checkpoint, {}, recorder)
        assert list(sampled(machines, PROMPTS, 2, job, 0, keeper))
        with pytest.raises(TrainingError, match="weights of iteration 0, and the policy has had 1"):
            list(sampled(machines, PROMPTS, 2, job, 1, keeper))
