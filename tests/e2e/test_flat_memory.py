"""A long run needs no more memory than a short one."""

import gc
from pathlib import Path
from statistics import median

import pytest
import torch

import plaudit
from plaudit.data.write import write_records
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt

ITERATIONS = 200
SETTLED = 60
"""Iterations until caches and the allocator have their size."""
COUNTED = 20
MOST_MEGABYTES = 8.0
"""Between the middle and the end of the run; a kept batch of 32 rows an iteration would be 20."""


def resident_mb():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1000


class Watch:
    """A reward that notes at each call how much memory there is, and now and then which tensors are alive."""

    def __init__(self):
        self.tensors, self.megabytes = [], []

    def __call__(self, prompts, responses):
        if len(self.megabytes) % COUNTED == 0:  # looking at every object takes longer than an iteration
            gc.collect()
            self.tensors.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
        self.megabytes.append(resident_mb())
        return [float(len(set(text))) for text in responses]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_nothing_grows_over_200_iterations(tmp_path):
    words = ["red", "blue", "green", "warm", "cold", "good", "bad", "big"]
    tokenizer = tiny_tokenizer([" ".join(words)] * 2, chat=False)
    tiny_lm("llama", tokenizer, hidden=32, layers=1).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    write_records(
        [Prompt(f"p{i}", f"say {words[i % 8]} {words[i // 8]}") for i in range(40)], tmp_path / "p.jsonl"
    )
    watch = Watch()
    plaudit.train(
        plaudit.PPO(critic_warmup=0, epochs=1), policy=str(tmp_path / "lm"), prompts=str(tmp_path / "p.jsonl"),
        reward=watch, out=str(tmp_path / "run"), iterations=ITERATIONS, batch_size=32, max_new_tokens=16, lr=1e-5,
        progress=False, tensorboard=False, eval_prompts=4,
    )  # fmt: skip
    assert len(watch.megabytes) >= ITERATIONS
    assert watch.tensors[-1] <= watch.tensors[SETTLED // COUNTED] + 2, watch.tensors
    grown = median(watch.megabytes[-60:]) - median(watch.megabytes[SETTLED:120])
    assert grown < MOST_MEGABYTES, f"{grown:.1f} MB more at the end of {ITERATIONS} iterations"
