"""The contract of scorers and learners. Every implementation runs it: here, in another process, on a Ray worker."""

import math

import pytest
import torch
from tests.contracts.other_backends import COMPUTE, ProcessLearner, build, likelihood, not_finite
from transformers import AutoModelForCausalLM

from plaudit.backends.local.learner import LocalScorer
from plaudit.config.sections import OptimizerSection
from plaudit.errors import TrainingError
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.policy import Policy

SECTION = OptimizerSection(lr=0.01, schedule="linear", warmup_fraction=0.0)
MAKERS = {"local": build, "another process": ProcessLearner}


@pytest.fixture(params=[*MAKERS, pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def make(request, tiny_model):
    """Makes learners of the same model, and ends their processes."""
    made = []

    def learner(role="policy", total_steps=10):
        if request.param == "ray":
            place = len([one for one in made if one.role == role])
            made.append(request.getfixturevalue("on_workers")(role, place, total_steps))
        else:
            made.append(MAKERS[request.param](tiny_model, role, SECTION, total_steps))
        return made[-1]

    yield learner
    for each in made:
        if isinstance(each, ProcessLearner):
            each.close()


def scorer_of(model):
    return LocalScorer(Policy(load_causal_lm(model, tokenizer=load_tokenizer(model))), COMPUTE)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def check_reads(scorer, batch, signal):
    """What every scorer does: one tensor a signal, on the CPU, in the order of the batch, 0 outside the responses."""
    [values] = scorer.read(batch, signal)
    assert values.shape == batch.tokens.shape and values.device.type == "cpu" and not values.requires_grad
    assert not values[~batch.response_mask].any() and values[batch.response_mask].isfinite().all()
    turned = torch.tensor([3, 0, 5, 1, 4, 2])
    [again] = scorer.read(batch.select(turned), signal)
    assert torch.allclose(again, values[turned][:, : again.shape[1]], atol=1e-5)


def test_a_scorer_reads(tiny_model, batch):
    check_reads(scorer_of(tiny_model), batch, "logprobs")


def test_a_learner_reads(make, batch):
    check_reads(make(), batch, "logprobs")
    critic = make("critic")
    critic.update(batch, value_of_one)
    check_reads(critic, batch, "values")


def value_of_one(batch, out):
    from plaudit.experience import Loss

    return Loss(batch.weighted_sum((out.values - 1).square()))


def test_two_signals_of_one_pass_are_those_of_two(make, batch):
    learner = make()
    both = learner.read(batch, "logprobs", "logprobs")
    assert torch.equal(*both) and torch.equal(both[0], learner.read(batch, "logprobs")[0])


def test_an_update_is_one_step_with_its_metrics(make, batch):
    learner = make()
    before = learner.weights().tensors()
    metrics = learner.update(batch, likelihood)
    assert {"nll", "lr", "grad_norm", "steps_skipped"} <= metrics.keys() and metrics["steps_skipped"] == 0
    assert learner.step == 1 and not equal(before, learner.weights().tensors())
    assert learner.update(batch, likelihood)["nll"] < metrics["nll"], "it has learned"


def test_the_same_bits_wherever_it_runs(make, tiny_model, batch):
    here, there = build(tiny_model, "policy", SECTION, 10), make()
    for _ in range(3):
        ours, theirs = (learner.update(batch, likelihood, [(batch, likelihood)]) for learner in (here, there))
        assert ours == theirs
    assert equal(here.weights().tensors(), there.weights().tensors())


def test_further_batches_add_to_the_same_step(make, batch):
    learner = make()
    alone = learner.update(batch, likelihood)
    learner = make()
    twice = learner.update(batch, likelihood, [(batch, likelihood)])
    assert learner.step == 1
    assert twice["grad_norm"] == pytest.approx(2 * alone["grad_norm"], rel=1e-4)
    assert twice["nll"] == pytest.approx(2 * alone["nll"], rel=1e-5)


def test_a_step_that_is_not_finite_leaves_weights_moments_and_schedule(make, batch):
    with_it, without = make(), make()
    for number in range(3):
        if number == 1:
            metrics = with_it.update(batch, not_finite)
            assert metrics["steps_skipped"] == 1 and not math.isfinite(metrics["grad_norm"])
        assert with_it.update(batch, likelihood) == without.update(batch, likelihood)
    assert with_it.step == without.step == 3
    assert equal(with_it.weights().tensors(), without.weights().tensors())


def test_rest_and_plan_move_the_learning_rate_alone(make, batch):
    learner = make(total_steps=4)
    before = learner.weights().tensors()
    learner.rest()
    assert learner.step == 1 and equal(before, learner.weights().tensors())
    assert learner.update(batch, likelihood)["lr"] == pytest.approx(0.01 * (1 - 1 / 4))
    learner.plan(8)
    assert learner.step == 2
    assert learner.update(batch, likelihood)["lr"] == pytest.approx(0.01 * (1 - 2 / 8))


def test_a_plan_made_afresh_is_a_new_training_from_the_present_weights(make, batch):
    learner = make()
    learner.update(batch, likelihood)
    now = learner.weights().tensors()
    learner.plan(10, afresh=True)
    assert learner.step == 0 and equal(now, learner.weights().tensors())
    other = make()
    other.put_back(now)
    learner.update(batch, likelihood)
    other.update(batch, likelihood)
    assert equal(learner.weights().tensors(), other.weights().tensors()), "no moments were kept"


def test_nobody_sets_its_step(make):
    with pytest.raises(AttributeError):
        make().step = 3


def test_weights_are_a_copy_and_go_back(make, batch):
    learner = make()
    before = learner.weights().tensors()
    kept = {name: tensor.clone() for name, tensor in before.items()}
    learner.update(batch, likelihood)
    assert equal(before, kept), "what was handed out does not change"
    learner.put_back(before)
    assert equal(learner.weights().tensors(), kept) and learner.step == 1


def test_saved_and_restored_it_goes_on_to_the_last_bit(make, batch, tmp_path):
    learner, critic = make(), make("critic")
    learner.update(batch, likelihood)
    learner.rest()
    for each in (learner, critic):
        each.save(tmp_path)  # into one directory
    again = make()
    again.restore(tmp_path)
    assert again.step == learner.step == 2
    assert again.update(batch, likelihood) == learner.update(batch, likelihood)
    assert equal(again.weights().tensors(), learner.weights().tensors())


def test_the_files_of_another_model_are_refused(make, tmp_path):
    make("critic").save(tmp_path)
    [written] = tmp_path.iterdir()
    written.rename(written.with_name(written.name.replace("critic", "policy")))
    with pytest.raises(TrainingError, match="another model"):
        make().restore(tmp_path)


def test_what_is_exported_others_load(make, tiny_model, batch, tmp_path):
    learner = make()
    learner.update(batch, likelihood)
    learner.export(tmp_path / "model", load_tokenizer(tiny_model))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.model_type == "llama"
    [exported] = scorer_of(str(tmp_path / "model")).read(batch, "logprobs")
    assert torch.equal(exported, learner.read(batch, "logprobs")[0])
