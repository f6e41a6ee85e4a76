"""SFT, GRPO and relatives, RLOO against TRL 1.12.0: same model and rows, fp32; loss and every gradient to 1e-5."""

import pytest
import torch

from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO
from plaudit.algorithms.rloo import RLOO
from plaudit.algorithms.sft import SFT

trl = pytest.importorskip("trl")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(trl.__version__ != "1.12.0", reason="the formulas compared are those of TRL 1.12.0"),
]
ADVANTAGES = torch.tensor([1.2, -0.7, 0.4, -0.9])
QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no", "logging_strategy": "no"}


def dataset(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


@pytest.fixture
def scene(rows, policy):
    """Our batch with old and reference log-probs near the policy's, and TRL's inputs with the same numbers."""
    batch = rows.experience()
    draw = torch.Generator().manual_seed(1)
    logprobs = policy(batch).logprobs.detach()

    def near():
        return (logprobs + 0.4 * torch.randn(logprobs.shape, generator=draw)) * batch.response_mask

    batch = batch.replace(
        old_logprobs=near(), ref_logprobs=near(), advantages=ADVANTAGES[:, None] * batch.response_mask
    )
    inputs = rows.theirs() | {
        "advantages": ADVANTAGES,
        "old_per_token_logps": rows.in_their_places(batch.old_logprobs),
        "ref_per_token_logps": rows.in_their_places(batch.ref_logprobs),
        "old_logps": batch.old_logprobs.sum(1),
        "num_items_in_batch": batch.response_mask.sum(),
    }
    return batch, inputs


def trainer(kind, config, lm, tokenizer, folder, **settings):
    """TRL's trainer, ready to compute a loss."""
    arguments = getattr(trl, config)(
        output_dir=str(folder), per_device_train_batch_size=4, num_generations=2, max_completion_length=8,
        beta=0.0, **QUIET, **settings,
    )  # fmt: skip
    made = getattr(trl, kind)(
        model=lm, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=arguments,
        train_dataset=dataset(prompt=["the cat"] * 4), processing_class=tokenizer,
    )  # fmt: skip
    made.current_gradient_accumulation_steps = 1
    return made


def ours(algorithm, batch, policy, gradients):
    loss = algorithm.loss(algorithm.weights(batch), policy(batch))
    return loss.value.item(), gradients(loss.value)


@pytest.mark.parametrize("loss_type", ["nll", "chunked_nll"])
def test_sft(rows, lm, policy, tokenizer, gradients, agree, tmp_path, loss_type):
    batch = rows.experience()
    labels = torch.where(batch.response_mask, batch.tokens, -100)
    arguments = trl.SFTConfig(output_dir=str(tmp_path), loss_type=loss_type, **QUIET)
    made = trl.SFTTrainer(
        model=lm, args=arguments, train_dataset=dataset(text=["the cat sat"] * 4), processing_class=tokenizer
    )
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.attention_mask.long(), "labels": labels}
    theirs = made.compute_loss(made.model, inputs, num_items_in_batch=batch.response_mask.sum())
    value, found = ours(SFT(), batch, policy, gradients)
    assert value == pytest.approx(theirs.item(), abs=1e-5)
    agree(found, gradients(theirs))


GRPO_CASES = {
    "paper": (
        GRPO(kl_coef=0.04, kl_estimator="k3_naive", aggregation="sequence_mean_token_mean"),
        {"loss_type": "grpo"}, 0.04, False,
    ),
    "unbiased kl": (GRPO(kl_coef=0.04), {"loss_type": "dapo"}, 0.04, True),
    "clip higher, no kl": (DAPO(), {"loss_type": "dapo", "epsilon_high": 0.28}, 0.0, False),
    "dr_grpo": (DrGRPO(), {"loss_type": "dr_grpo"}, 0.0, False),
    "dr_grpo with kl": (DrGRPO(kl_coef=0.1), {"loss_type": "dr_grpo"}, 0.1, True),
    "gspo": (
        GSPO(clip=0.05, clip_high=0.08),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.08},
        0.0, False,
    ),
    "cispo": (CISPO(ratio_max=1.3), {"loss_type": "cispo", "epsilon_high": 1.3}, 0.0, False),
}  # fmt: skip


@pytest.mark.parametrize("name", GRPO_CASES)
def test_grpo_and_relatives(scene, lm, policy, tokenizer, gradients, agree, tmp_path, name):
    batch, inputs = scene
    algorithm, settings, beta, corrected = GRPO_CASES[name]
    made = trainer("GRPOTrainer", "GRPOConfig", lm, tokenizer, tmp_path, **settings)
    made.beta, made.args.use_bias_correction_kl = (
        beta,
        corrected,
    )  # a beta from the start would load a reference
    theirs = made._compute_loss(made.model, dict(inputs))
    value, found = ours(algorithm, batch, policy, gradients)
    assert value == pytest.approx(theirs.item(), abs=1e-5)
    agree(found, gradients(theirs))


def test_rloo(scene, lm, policy, tokenizer, gradients, agree, tmp_path):
    batch, inputs = scene
    made = trainer("RLOOTrainer", "RLOOConfig", lm, tokenizer, tmp_path)
    theirs = made._compute_loss(made.model, dict(inputs))
    value, found = ours(RLOO(), batch, policy, gradients)
    assert value == pytest.approx(theirs.item(), abs=1e-5)
    agree(found, gradients(theirs))
