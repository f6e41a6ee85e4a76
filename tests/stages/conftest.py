"""A tiny language model and a few rows of data, made once."""

from pathlib import Path

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import ComputeSection, DataSection, LogSection, OptimizerSection, SamplingSection
from plaudit.data.write import write_records
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration, Preference, Prompt

WORDS = ("red", "blue", "green", "warm", "cold", "good", "bad", "big")
QUIET = {
    "log": LogSection(progress=False, tensorboard=False, samples=2),
    "compute": ComputeSection(precision="fp32", threads=1),
}


def sentence(i, n=3):
    return "".join(f" {WORDS[(i * 5 + j * 3) % len(WORDS)]}" for j in range(n))


class World:
    """Files that the stages read."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root = root
        prompts = [Prompt(f"p{i}", f"say{sentence(i, 2)}") for i in range(12)]
        tokenizer = tiny_tokenizer([f"say{sentence(i, 4)}" for i in range(64)], chat=False)
        self.lm = str(root / "lm")
        tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.2).save_pretrained(self.lm)
        tokenizer.save_pretrained(self.lm)
        self.demonstrations = str(root / "demonstrations.jsonl")
        rows = [Demonstration(f"d{i}", f"say{sentence(i, 2)}", sentence(i + 1)) for i in range(24)]
        write_records(rows, self.demonstrations)
        self.preferences = str(root / "preferences.jsonl")
        worse = [" bad bad", " cold bad", " bad cold"]
        pairs = [Preference(f"c{i}", f"say{sentence(i, 2)}", " good good", worse[i % 3]) for i in range(24)]
        write_records(pairs, self.preferences)
        self.prompts = str(root / "prompts.jsonl")
        write_records(prompts, self.prompts)

    def sft(self, out, **changes):
        settings = {"model": self.lm, "dataset": self.demonstrations, "out": str(out), "batch_size": 8}
        return SFTJob(**(QUIET | settings | {"sampling": SamplingSection(max_new_tokens=4)} | changes))

    def reward(self, out, **changes):
        settings = {"model": self.lm, "dataset": self.preferences, "out": str(out), "batch_size": 8}
        return RewardJob(**(QUIET | settings | {"optimizer": OptimizerSection(lr=1e-3)} | changes))

    def rl(self, out, **changes):
        settings = {
            "policy": self.lm, "dataset": self.prompts, "out": str(out), "iterations": 4,
            "prompts_per_iteration": 4, "sampling": SamplingSection(max_new_tokens=5),
            "data": DataSection(eval_fraction=0.25), "optimizer": OptimizerSection(lr=1e-3),
            "algorithm": PPO(critic_warmup=0),
        }  # fmt: skip
        return RLJob(**(QUIET | settings | changes))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))
