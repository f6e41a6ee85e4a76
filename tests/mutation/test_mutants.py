"""The mutation check finds faults that tests overlook; and the tests of the central formulas overlook none."""

import subprocess
import sys
from pathlib import Path

import mutants
import mutations
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''
import torch

def loss(logprobs, old_logprobs, advantages, mask):
    """Docstrings - are left alone."""
    assert advantages.shape == mask.shape
    ratio = (logprobs - old_logprobs).exp()
    return torch.where(mask, -advantages * ratio, 0.0).sum() / masked_mean(ratio, mask)

class Algorithm:
    clip: float = 0.2
    def loss(self, batch, out):
        mean = batch.weighted_sum
        metrics = {"kl": mean(out - 1)}
        return mean(out.detach()) + f(out.logprobs, batch.old_logprobs)
'''


def changes(function):
    return {(m.before, m.after) for m in mutations.mutants("functional.x", SOURCE) if m.function == function}


def test_faults_of_a_function():
    found = changes("loss")
    assert ("logprobs - old_logprobs", "logprobs + old_logprobs") in found, "a sign"
    assert ("-advantages", "advantages") in found, "a sign"
    assert ("torch.where(mask, -advantages * ratio, 0.0)", "-advantages * ratio") in found, "a mask"
    assert ("masked_mean(ratio, mask)", "ratio.mean()") in found, "a mask"
    assert ("-advantages * ratio", "ratio") in found, "a factor"
    assert ("(logprobs - old_logprobs).exp()", "logprobs - old_logprobs") in found
    assert not any("assert" in before or "shape" in before for before, _ in found)


def test_faults_of_a_method():
    found = changes("Algorithm.loss")
    assert ("mean = batch.weighted_sum", "mean = torch.mean") in found, "the mean of a microbatch"
    assert ("out.detach()", "out") in found
    swapped = ("f(out.logprobs, batch.old_logprobs)", "f(batch.old_logprobs, out.logprobs)")
    assert swapped in found, "two arguments"
    assert not any("out - 1" in before for before, _ in found), "metrics are left alone"


def test_each_mutant_is_another_program_that_compiles():
    sources = [m.source for m in mutations.mutants("functional.x", SOURCE)]
    assert len(set(sources)) == len(sources) > 10
    for source in sources:
        compile(source, "x", "exec")


def test_off_by_one():
    source = "def f(x, n):\n    for t in range(n):\n        y = x[:, t] + x[:, :-1].sum()\n"
    found = {(m.before, m.after) for m in mutations.mutants("functional.x", source)}
    assert {("x[:, t]", "x[:, t - 1]"), (":-1", "1:")} <= found


def test_every_equal_mutant_has_a_reason():
    assert all(len(reason) > 10 for reason in mutants.known_equal().values())


def run(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/mutants.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_no_fault_of_the_central_formulas_is_overlooked():
    """Always on: a few formulas. All of them: make mutants."""
    modules = [f"functional.{name}" for name in ("losses", "advantages", "weights")]
    names = ("losses", "advantages", "statistics")
    tests = ",".join(
        ["numerics/test_killers_functional.py", *(f"functional/test_{name}.py" for name in names)]
    )
    done = run(*modules, "--function", "clipped_policy_loss,gae,loss_weights", "--tests", tests)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " 0 survived" in done.stdout


def test_faults_of_a_formula_that_no_test_calls_survive():
    done = run("functional.kl", "--function", "k1,k2", "--tests", "functional/test_losses.py")
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("functional.kl")]
    assert int(row[1]) >= 3 and row[2:] == ["0", row[1], "0"], "mutants, killed, alive, equal"


@pytest.mark.slow
def test_no_fault_of_any_formula_is_overlooked():
    done = subprocess.run(
        [sys.executable, "scripts/mutants.py", "--jobs", "2"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
