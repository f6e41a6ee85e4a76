"""A tiny model on disk that every implementation loads, and rows for it."""

import pytest
import torch
from tests.contracts.other_backends import COMPUTE
from tests.models.conftest import make_batch, make_rows

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import OptimizerSection
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward_tables import RuleTable
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A directory with a language model and its tokenizer."""
    torch.set_num_threads(1)
    folder = str(tmp_path_factory.mktemp("model"))
    tokenizer = tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)
    tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def on_workers(tiny_model, tmp_path_factory):
    """Learners on two Ray workers, each a run of its own: by role, place (0 or 1) and steps, as if just loaded."""
    pytest.importorskip("ray", reason="pip install 'plaudit[ray]'")
    from plaudit.backends.ray.group import open_group
    from plaudit.backends.ray.remote import RemoteLearner

    prompts = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    prompts.write_text('{"prompt": "the cat"}\n')
    job = RLJob(
        policy=tiny_model, dataset=str(prompts), out="never", reward=[RuleTable(rule="contains", text="cat")],
        algorithm=PPO(critic="sft", critic_lr=0.01),
        optimizer=OptimizerSection(lr=0.01, schedule="linear", warmup_fraction=0.0),
        compute=COMPUTE.model_copy(update={"backend": "ray"}),
    )  # fmt: skip
    groups = [open_group(job)[0] for _ in range(2)]
    loaded = {(role, i): RemoteLearner(group, role) for role in ("policy", "critic") for i, group in enumerate(groups)}
    first = {role: loaded[role, 0].weights().tensors() for role in ("policy", "critic")}

    def learner(role, place, total_steps):
        found = loaded[role, place]
        found.put_back(first[role])
        found.plan(total_steps, afresh=True)
        return found

    yield learner
    groups[0].cluster.ray.shutdown()


@pytest.fixture
def batch():
    """Six rows of unequal length with weights; more than one microbatch."""
    rows = make_batch(make_rows(lengths=(11, 5, 8, 9, 7, 12)))
    weights = rows.response_mask / rows.response_mask.sum()
    return rows.replace(loss_weights=weights, group_ids=torch.arange(6))
