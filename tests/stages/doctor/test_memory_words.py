"""What is said of a memory plan: fits, is tight, is too much, cannot be; each with a cure that fits the plan."""

from __future__ import annotations

from typing import Any

import pytest

from plaudit import backends
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.errors import MachineError, ModelError, Unplanned
from plaudit.jobs.sft import SFTJob
from plaudit.runtime import LIBRARIES, SLACK, MemoryPlan, Room
from plaudit.stages.doctor.memory import caution_of, check_memory, examine_memory, figures_of, refuse
from plaudit.stages.doctor.part import in_units, printable, shortened
from plaudit.stages.said import Said

GB = 10**9


def plan_of(total: float, free: float, **changes: Any) -> MemoryPlan:
    """4 GB that stay, and a step that takes 1 GB of gradients and 5 GB of activations."""
    held = {"policy": 1 * GB, "optimizer, policy": 2 * GB, "reference": 1 * GB}
    passing = {
        "updating the policy": {"gradients": 1 * GB, "activations": 5 * GB},
        "sampling": {"KV cache": 2 * GB, "generation": 1 * GB},
    }
    room = Room(int(total * GB), int(free * GB), "this machine", 0)
    return MemoryPlan("cpu", held, passing, room, **changes)


def test_by_hand() -> None:
    plan = plan_of(100, 100)
    assert plan.moment == "updating the policy"
    assert (plan.peak, plan.least) == (10 * GB, 5 * GB)
    assert plan.need == 10 * GB + SLACK * 6 * GB, "on a GPU the process holds nothing of it"
    on_cpu = MemoryPlan("cpu", plan.held, plan.passing, Room(100 * GB, 90 * GB, "this machine", GB // 2))
    assert on_cpu.need == plan.need + GB // 2 + LIBRARIES
    assert figures_of(on_cpu)["free"] == 90.5 * GB


def test_what_fits_is_not_warned_of() -> None:
    assert caution_of(plan_of(100, 100), SFTJob()) == ""
    refuse(plan_of(100, 100), SFTJob())


@pytest.mark.parametrize(
    ("free", "changes", "words"),
    [
        (12, {}, ("nearly all that is free", "--tokens-per-microbatch to 4096", "--rank 8, which saves up to 4.00 GB")),
        (9, {}, ("more than is free", "--tokens-per-microbatch to 2048")),
        (6, {}, ("more than is free", "--gradient-checkpointing", "--rank 8")),
        (9, {"lora": LoraSection(rank=8)}, ("--tokens-per-microbatch to 2048",)),
    ],
)
def test_what_does_not_is_warned_of_with_its_cure(free: float, changes: Any, words: tuple[str, ...]) -> None:
    caution = caution_of(plan_of(64, free), SFTJob(**changes))
    assert all(word in caution for word in words), caution


def test_the_cure_is_large_enough() -> None:
    """With the microbatch that is advised the need is within what is free."""
    job = SFTJob()
    caution = caution_of(plan_of(64, 9), job)
    advised = int(caution.partition("--tokens-per-microbatch to ")[2].split()[0])
    share = advised / job.compute.tokens_per_microbatch
    need = 4 * GB + (1 + SLACK) * (1 * GB + share * 5 * GB)
    assert need < 9 * GB


def test_recomputing_is_not_advised_twice() -> None:
    job = SFTJob(compute=ComputeSection(gradient_checkpointing=True))
    assert "checkpointing" not in caution_of(plan_of(64, 6), job)


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(MachineError) as error:
        refuse(plan_of(4.5, 4.5), SFTJob())
    assert "5.00 GB are needed for weights, optimizer and gradients alone" in error.value.what
    assert "--rank 8" in error.value.cure and error.value.exit_code == 74
    refuse(plan_of(4.5, 4.5, rough=True), SFTJob())  # an upper limit proves nothing


def test_a_run_says_it_in_a_line_and_an_event(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(backends, "plan", lambda job, records, in_full: plan_of(64, 9))
    said = Said()
    check_memory(SFTJob(), [], said)
    out = capsys.readouterr().out
    assert "memory  needs about 11.20 GB when updating the policy, of 9.00 GB on cpu" in out
    assert "more than is free" in out and len(said.messages) == 1


def test_what_cannot_be_planned_is_left_to_who_loads_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def unknown(*args: Any, **options: Any) -> None:
        raise ModelError("no such model")

    monkeypatch.setattr(backends, "plan", unknown)
    check_memory(SFTJob(), [], Said())
    assert capsys.readouterr().out == ""


def test_what_cannot_be_rehearsed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def unknown(*args: Any, **options: Any) -> None:
        raise Unplanned("a strange architecture", cure="watch memory/peak")

    monkeypatch.setattr(backends, "plan", unknown)
    check_memory(SFTJob(), [], Said())
    assert "a strange architecture" in capsys.readouterr().out
    [part] = examine_memory(SFTJob(), [])
    assert part.warnings == ["a strange architecture: watch memory/peak"]


def test_words() -> None:
    assert printable("a\x1b[2Jb\u202ec\n") == "a\\x1b[2Jb\\u202ec\\n"
    assert printable("\ud800") == "\\ud800"
    assert len(shortened("\x1b" * 10_000, 50)) == 50 == len(shortened("\n" * 10_000, 50, end=True))
    assert in_units(0) == "0 MB"
