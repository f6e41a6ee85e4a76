"""Every stage on a GPU beside the same on the CPU, in fp32. Run with `make test-gpu`."""

from typing import Any

import pytest
import torch

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.jobs.online import GRPOJob
from plaudit.jobs.preference import DPOJob
from plaudit.records import RewardResult
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

pytestmark = pytest.mark.gpu

DEVICES = ("cpu", "cuda")


@pytest.fixture(autouse=True)
def full_products() -> Any:
    """Products of fp32 matrices in fp32, not in the shortened TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def on(device: str, **changes: Any) -> ComputeSection:
    return ComputeSection(**({"device": device, "precision": "fp32", "threads": 1} | changes))


def likes_good(rollouts: Any) -> list[RewardResult]:
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def assert_alike(runs: list[Any], *names: str) -> None:
    """The metrics of two runs, line by line, where both have them."""
    mine, theirs = (read_lines(run / "metrics.jsonl") for run in runs)
    assert len(mine) == len(theirs) > 0
    compared = set()
    for a, b in zip(mine, theirs, strict=True):
        for name in names:
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=2e-3, abs=2e-4), name
                compared.add(name)
    assert compared == set(names)


def test_supervised_stages_learn_the_same(world: Any, tmp_path: Any) -> None:
    sft = [run_sft(world.sft(tmp_path / f"sft-{d}", compute=on(d))) for d in DEVICES]
    assert_alike(sft, "loss")
    reward = [run_reward(world.reward(tmp_path / f"reward-{d}", compute=on(d))) for d in DEVICES]
    assert_alike(reward, "loss")
    dpo = [
        run_dpo(
            DPOJob(
                model=world.lm, dataset=world.preferences, out=str(tmp_path / f"dpo-{d}"), batch_size=8,
                log=world.sft("x").log, compute=on(d),
            )
        )
        for d in DEVICES
    ]  # fmt: skip
    assert_alike(dpo, "loss")


@pytest.mark.parametrize("algorithm", [PPO(critic_warmup=0), PPO(critic_warmup=0, critic="trunk"), GRPO()])
@pytest.mark.parametrize("lora", [LoraSection(), LoraSection(rank=4)])
def test_online_stages_learn_the_same(world: Any, tmp_path: Any, algorithm: Any, lora: LoraSection) -> None:
    def job(device: str) -> Any:
        ppo = world.rl(tmp_path / device, iterations=2, lora=lora, compute=on(device))
        if isinstance(algorithm, GRPO):
            shared = {name: getattr(ppo, name) for name in GRPOJob.model_fields}
            return GRPOJob(**(shared | {"algorithm": algorithm}))
        return ppo.model_copy(update={"algorithm": algorithm})

    runs = [run_rl(job(device), reward=likes_good) for device in DEVICES]
    assert_alike(runs, "reward/mean", "policy/loss", "objective/kl")


def test_bf16_runs_and_stays_near_what_generation_recorded(world: Any, tmp_path: Any) -> None:
    run = run_rl(world.rl(tmp_path / "bf16", compute=on("cuda", precision="bf16")), reward=likes_good)
    assert all(abs(line["rollout/mismatch_kl"]) < 0.01 for line in read_lines(run / "metrics.jsonl"))
