"""What a role has to itself: shared tensors once, trained ones with gradient and moments."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.online import GIGABYTE, peak_gb, role_memory
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.experience import Experience, Loss, Outputs


class Toy(nn.Module):
    """One trained and one frozen matrix."""

    def __init__(self, frozen):
        super().__init__()
        self.frozen = frozen
        self.trained = nn.Parameter(torch.zeros(3, 5))

    def forward(self, batch):
        return Outputs(values=self.trained.sum() * batch.response_mask.float())


def frozen(rows):
    return nn.Parameter(torch.ones(rows, 10), requires_grad=False)


def test_by_hand():
    base = frozen(10)  # 400 bytes; each toy trains 60 bytes, held four times
    found = role_memory(
        {"policy": [Toy(base)], "reference": [], "critic": [Toy(base)], "reward": [Toy(frozen(2))]}
    )
    assert found == {
        "memory/policy": pytest.approx((400 + 240) / GIGABYTE),
        "memory/reference": 0,
        "memory/critic": pytest.approx(240 / GIGABYTE),
        "memory/reward": pytest.approx((80 + 240) / GIGABYTE),
    }


def test_the_figures_add_up_to_what_training_really_holds():
    toys = [Toy(base := frozen(10)), Toy(base), Toy(frozen(2))]
    found = sum(role_memory({str(i): [toy] for i, toy in enumerate(toys)}).values())
    mask = torch.ones(1, 2, dtype=torch.bool)
    batch = Experience(torch.zeros(1, 2, dtype=torch.long), mask, mask)
    held = 0
    for toy in toys:
        learner = LocalLearner(toy, OptimizerSection(lr=1e-5, warmup_fraction=0), ComputeSection(), total_steps=2)
        gradients = []
        toy.trained.register_post_accumulate_grad_hook(lambda p, g=gradients: g.append(p.grad.nbytes))
        learner.update(batch, lambda b, out: Loss(out.values.sum()))
        moments = learner.optimizer.state[toy.trained]
        held += moments["exp_avg"].nbytes + moments["exp_avg_sq"].nbytes + gradients[0]
    weights = {p.data_ptr(): p.nbytes for toy in toys for p in toy.parameters()}
    assert found * GIGABYTE == pytest.approx(sum(weights.values()) + held)


GROWS = """
import torch
from plaudit.backends.local.online import GIGABYTE, peak_gb
cpu = torch.device("cpu")
before = peak_gb(cpu)
assert 0.01 < before < 1000, "in GB, whatever the system counts in"
block = torch.ones(int((before + 0.2) * GIGABYTE) // 4)
after = peak_gb(cpu)
assert after >= before + 0.1, (before, after)
del block
assert peak_gb(cpu) >= after
"""


def test_the_peak_rises_with_what_was_held_and_does_not_fall():
    """In a process of its own: the peak of this one, which it has to exceed, may be of any size."""
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", GROWS], check=True, env=os.environ | {"PYTHONPATH": path})


def test_the_peak_is_in_bytes_on_a_mac_and_needs_no_resource_module_on_windows(monkeypatch):
    cpu, usage = torch.device("cpu"), SimpleNamespace(ru_maxrss=3_000_000)
    counted = SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0)
    monkeypatch.setitem(sys.modules, "resource", counted)
    monkeypatch.setattr(sys, "platform", "linux")
    assert peak_gb(cpu) == pytest.approx(3_072_000_000 / GIGABYTE)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_gb(cpu) == pytest.approx(3_000_000 / GIGABYTE)
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as on Windows
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5_000_000_000))
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=lambda: process))
    assert peak_gb(cpu) == pytest.approx(5.0)
