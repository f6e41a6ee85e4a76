"""The contract of generators: on the tensors that are trained, and with a copy of their own."""

from dataclasses import replace

import pytest
import torch
from tests.contracts.other_backends import OwnCopy, build

from plaudit.config.sections import OptimizerSection, SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.load import load_tokenizer
from plaudit.records import Prompt
from plaudit.rollouts.environment import SingleTurn
from plaudit.rollouts.turns import TurnGenerator
from plaudit.runtime import TokenPrompt

SAMPLING = SamplingSection(max_new_tokens=6)
PROMPTS = [TokenPrompt(Prompt(f"p{i}", "x"), (2, *ids)) for i, ids in enumerate(([9, 10], [11], [12, 9, 13]))]


def shared(policy, tokenizer):
    return NativeGenerator(policy.lm, tokenizer, (3,))


def own_copy(policy, tokenizer):
    return OwnCopy(policy, tokenizer, (3,))


def in_turns(policy, tokenizer):
    """A copy of its own, within an environment that does not reply."""
    return TurnGenerator(own_copy(policy, tokenizer), SingleTurn(), ChatFormat(tokenizer), 64)


@pytest.fixture(params=[shared, own_copy, in_turns], ids=["shared tensors", "own copy", "in turns"])
def pair(request, tiny_model):
    """A learner and the generator that is told of its weights."""
    learner = build(tiny_model, "policy", OptimizerSection(lr=0.1, warmup_fraction=0.0), 9)
    return learner, request.param(learner.module, load_tokenizer(tiny_model))


def draw(generator, prompts=PROMPTS, n=2, seed=5, iteration=0):
    return generator.generate(prompts, n, SAMPLING, seed=seed, iteration=iteration)


def moved(learner):
    """The learner with other weights."""
    weights = {
        name: tensor + 0.3 * torch.sin(tensor * 50) for name, tensor in learner.weights().tensors().items()
    }
    learner.put_back(weights)


def test_n_responses_to_each_prompt_in_order_with_their_log_probs(pair):
    _, generator = pair
    rollouts = draw(generator)
    assert [(r.prompt.id, r.group_id) for r in rollouts] == [(f"p{i}", i) for i in (0, 0, 1, 1, 2, 2)]
    for rollout in rollouts:
        assert len(rollout.response_ids) == len(rollout.logprobs) <= 6 and max(rollout.logprobs) <= 0
        assert rollout.finish_reason == ("stop" if rollout.response_ids[-1] == 3 else "length")


def test_a_response_depends_on_weights_seeds_and_its_prompt_alone(pair):
    _, generator = pair
    ids = [r.response_ids for r in draw(generator)]
    assert ids == [r.response_ids for r in draw(generator)]
    assert ids[2:4] == [r.response_ids for r in draw(generator, PROMPTS[1:2])], "whatever is beside it"
    assert ids != [r.response_ids for r in draw(generator, seed=6)]
    assert ids != [r.response_ids for r in draw(generator, iteration=1)]


def test_a_prompt_may_have_a_limit_of_its_own(pair):
    """A response is cut there and is the same up to there: later turns of a rollout rely on it."""
    _, generator = pair
    whole, cut = draw(generator), draw(generator, [replace(p, max_new_tokens=2) for p in PROMPTS])
    assert [r.response_ids for r in cut] == [r.response_ids[:2] for r in whole]
    assert max(len(r.response_ids) for r in whole) > 2


def test_progress_is_told(pair):
    _, generator = pair
    told = []
    generator.generate(
        PROMPTS, 2, SAMPLING, seed=1, iteration=0, progress=lambda done, count: told.append((done, count))
    )
    assert told[-1] == (6, 6) and told == sorted(told)


def test_rollouts_bear_the_version_that_was_published(pair):
    learner, generator = pair
    for version in (0, 7):
        generator.publish(learner.weights(), version)
        assert {r.policy_version for r in draw(generator)} == {version}


def test_after_publishing_it_draws_from_the_new_weights(pair, tiny_model):
    learner, generator = pair
    before = draw(generator)
    moved(learner)
    generator.publish(learner.weights(), 1)
    after = draw(generator)
    assert [r.logprobs for r in before] != [r.logprobs for r in after]
    fresh = build(tiny_model, "policy", OptimizerSection(lr=1e-5), 9)
    moved(fresh)
    expected = draw(shared(fresh.module, load_tokenizer(tiny_model)))
    assert [(r.response_ids, r.logprobs) for r in after] == [(r.response_ids, r.logprobs) for r in expected]


def test_a_copy_that_is_told_nothing_draws_from_the_old_weights(tiny_model):
    """Why the loop has to publish: nothing else tells such a generator."""
    learner = build(tiny_model, "policy", OptimizerSection(lr=1e-5), 9)
    generator = own_copy(learner.module, load_tokenizer(tiny_model))
    before = draw(generator)
    moved(learner)
    assert [r.logprobs for r in draw(generator)] == [r.logprobs for r in before]
