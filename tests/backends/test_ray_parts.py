"""What one rank builds, without Ray: the copies of the policy are copies, whatever is sharded first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.models.conftest import make_batch, make_rows

from plaudit.algorithms.ppo import PPO
from plaudit.backends.ray.parts import build_parts
from plaudit.config.sections import ComputeSection
from plaudit.jobs.online import RLJob
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_reference_and_critic_are_copies_of_the_policy(one_rank: None, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)
    lm = tiny_lm("llama", tokenizer, hidden=16, layers=2, scale=0.3)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    compute = ComputeSection(device="cpu", precision="fp32", threads=1, backend="ray", tokens_per_microbatch=64)
    job = RLJob(policy=str(tmp_path / "lm"), dataset="never", compute=compute, algorithm=PPO(critic="sft"))
    parts = build_parts(job)
    policy, critic = (parts.learners[name].gather() for name in ("policy", "critic"))
    stored = {name.partition("model.")[2]: tensor for name, tensor in lm.named_parameters()}
    for found in (policy, critic):
        layers = {name: tensor for name, tensor in found.items() if ".layers." in name}
        assert len(layers) == sum("layers." in name for name in stored)
        for name, tensor in layers.items():
            assert torch.equal(tensor, stored[f"layers.{name.partition('.layers.')[2]}"]), name
    batch = make_batch(make_rows(lengths=(7, 5)))
    ours, theirs = (m.read(batch, "logprobs")[0] for m in (parts.learners["policy"], parts.scorers["reference"]))
    assert torch.equal(ours, theirs)
