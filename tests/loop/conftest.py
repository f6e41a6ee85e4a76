"""A tiny world for loops: a language model of eight words, prompts, and a config whose rounds take seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stages.conftest import World

SCORE = '''"""The truth of this world."""


def true_score(prompt, response):
    """Good words count."""
    return response.count("good") + response.count("warm") - response.count("bad")
'''
CONFIG = """\
model = "{model}"
dataset = "{prompts}"
out = "{out}"
rounds = 2
comparisons = 24

[annotators]
kind = "simulated"
source = "{score}:true_score"

[data]
eval_fraction = 0.25

[sampling]
max_new_tokens = 5

[compute]
precision = "fp32"
threads = 1

[log]
trackers = []
samples = 2

[checkpoint]
every = 1

[reward]
batch_size = 8
[reward.optimizer]
lr = 1e-3

[policy]
command = "grpo"
gold = ["{score}:true_score"]
iterations = 2
prompts_per_iteration = 3
[policy.optimizer]
lr = 1e-3
[policy.algorithm]
group_size = 2
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Writes a config with some lines replaced, and returns its path."""
    root = tmp_path_factory.mktemp("loop")
    world = World(root)
    score = root / "score.py"
    score.write_text(SCORE, encoding="utf-8")

    def write(out: Path, *changes: tuple[str, str], name: str = "loop") -> Path:
        text = CONFIG.format(model=world.lm, prompts=world.prompts, out=out, score=score)
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = out.parent / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
