"""What a checkpoint costs the training: how long it stops for one that is written beside it, and for one that is not.

    python benchmarks/checkpoint_cost.py [MILLIONS]

A model of so many million parameters in fp32 with the two moments of AdamW, in the machine's temporary directory. The
median of nine; figures are in docs/howto/resume.md.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import CheckpointSection, ComputeSection, LogSection, OptimizerSection
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder

REPEATS = 9


def main() -> None:
    """Print the two times and their ratio."""
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 8.4
    width = int((millions * 1e6 / 8) ** 0.5)
    module = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(8)))
    learner = LocalLearner(module, OptimizerSection(lr=1e-5), ComputeSection(device="cpu"), total_steps=9)
    module(torch.ones(1, width)).sum().backward()
    learner.optimizer.step()
    blocked, whole = [], []
    with tempfile.TemporaryDirectory() as place:
        with Recorder(Path(place), command="sft", log=LogSection(trackers=())) as recorder:
            keeper = Keeper(Path(place), CheckpointSection(every=1), {"policy": learner}, recorder)
            for step in range(1, REPEATS + 2):
                began = time.perf_counter()
                keeper.save(step, {})
                stopped = time.perf_counter() - began
                keeper.finish()
                if step > 1:  # the first copy asks the system for its memory
                    blocked.append(stopped)
                    whole.append(time.perf_counter() - began)
    one, other = statistics.median(blocked), statistics.median(whole)
    size = sum(p.numel() for p in module.parameters()) * 12 / 1e6
    print(f"{size:.0f} MB: the training stops for {one:.4f} s of {other:.4f} s ({one / other:.0%})")


if __name__ == "__main__":
    main()
