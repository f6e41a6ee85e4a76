"""The benchmarks' own parts: the same work on both sides, workers that take turns, tables that say what was reached."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def plan_module():
    import plan

    return plan


def make(plan_module, task, lengths, **sizes):
    words = plan_module.Words(range(10, 30), [f" w{i}" for i in range(20)], [1], 2)
    shape = plan_module.Shape(3, **sizes)
    return plan_module.make_plan(task, Path("m"), words, shape, lengths=lengths, steps=2)


def test_a_plan_survives_its_file_and_counts_tokens(plan_module, tmp_path):
    plan = make(plan_module, "dpo", "varied")
    plan.save(tmp_path / "plan.json")
    assert plan_module.Plan.load(tmp_path / "plan.json") == plan
    rows = plan.step_rows(1)
    assert rows == plan.rows[3:]
    assert plan.tokens(1) == sum(len(r.prompt + r.chosen) + len(r.prompt + r.rejected) for r in rows)
    assert all(r.prompt[0] == 1 and r.chosen[-1] == 2 == r.rejected[-1] for r in plan.rows)


def test_fixed_lengths_are_fixed(plan_module):
    plan = make(plan_module, "grpo", "fixed", group=2, fixed=(8, 5))
    assert {len(r.prompt) for r in plan.rows} == {8}
    assert {tuple(r.lengths) for r in plan.rows} == {(5, 5)}
    assert plan.tokens(0) == 3 * 2 * 5


WORKER = """
import sys, time
from gate import Gate
gate = Gate(peak=lambda: 1.5, reset=lambda: print("a library prints"))
gate.ready()
for step in range(int(sys.argv[1])):
    if step == 1:
        raise ValueError("broken inside")
    time.sleep(0.05)
    gate.step(step + 7, **{"time/update": 0.04})
"""


@pytest.fixture
def worker(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n" + WORKER)
    return [sys.executable, str(path)]


def test_a_side_does_a_step_when_asked(worker, tmp_path):
    from gate import Side

    with (
        Side("a", [*worker, "1"], tmp_path / "a.log") as one,
        Side("b", [*worker, "1"], tmp_path / "b.log") as two,
    ):
        for side in (one, two):
            side.wait_ready()
        answers = [side.step(reset_peak=True) for side in (one, two)]
    for answer in answers:
        assert answer["tokens"] == 7 and answer["peak_gb"] == 1.5 and answer["time/update"] == 0.04
        assert 0.05 <= answer["seconds"] < 300
    assert "a library prints" in (tmp_path / "a.log").read_text()


def test_a_side_that_breaks_is_reported_with_its_last_words(worker, tmp_path):
    from gate import Side

    with Side("a", [*worker, "2"], tmp_path / "a.log") as side:
        side.wait_ready()
        side.step()
        with pytest.raises(RuntimeError, match="broken inside"):
            side.step()


def test_the_table_says_what_was_reached():
    from tables import Case, Measured, markdown

    def side(name, seconds, gb):
        return Measured(name, [100, 100], seconds, gb, {}, 1.0)

    ours = side("plaudit", [1.0, 2.0], 0.5)
    case = Case(
        "tiny",
        "sft",
        "varied",
        [ours, side("trl-default", [4.0, 4.0], 1.0), side("trl-fp32", [1.0, 2.4], 1.0)],
    )
    text = markdown([case], {"cores": 2})
    assert "**3.00** (2.00 to 4.00) [>= 2.6: reached]" in text
    assert "**1.10** (1.00 to 1.20) [>= 2.1: 52% of it]" in text
    assert "**0.50** [<= 1: reached]" in text
    assert case.to_json()["ratios"]["trl-default"] == {"speed": 3.0, "range": (2.0, 4.0), "memory": 0.5}


def test_the_bound_counts_the_products_of_a_task(plan_module):
    from bound import Size, operations

    size = Size(trunk=100, head=10)
    sft = make(plan_module, "sft", "fixed", fixed=(8, 5))
    # Three rows of 8 + 5 tokens; logits at the 5 of the response; 6 operations a weight.
    assert operations(sft, 0, size) == 6 * (100 * 3 * 13 + 10 * 3 * 5)
    grpo = make(plan_module, "grpo", "fixed", group=2, fixed=(8, 5))
    # Each prompt once for its two responses; sampled (2 operations) and learned from (6).
    assert operations(grpo, 0, size) == 8 * (100 * 3 * (8 + 10) + 10 * 3 * 10)
    apart, trunk = (make(plan_module, task, "fixed", fixed=(8, 5)) for task in ("ppo", "ppo_trunk"))
    # Four epochs in which the critic's trunk learns as well, or not.
    assert operations(apart, 0, size) - operations(trunk, 0, size) == 4 * 6 * 100 * 3 * 13


def test_the_distance_from_the_bound_is_that_of_every_side():
    from tables import Case, Measured, markdown

    sides = [Measured(n, [100], [s], 1.0, {}, 1.0) for n, s in (("plaudit", 1.0), ("plaudit-bf16", 0.5))]
    case = Case("tiny", "sft", "varied", sides, {"fp32": 150.0, "bf16": 400.0})
    assert "fp32 150, bf16 400 | plaudit 4.0, plaudit-bf16 2.0 |" in markdown([case], {})


def test_other_work_is_refused():
    from tables import Measured, ratio

    one, other = (
        Measured(name, [n], [1.0], 1.0, {}, 1.0) for name, n in (("plaudit", 100), ("trl-default", 90))
    )
    with pytest.raises(AssertionError, match="the same work"):
        ratio(one, other)


@pytest.mark.slow
def test_all_tasks_run_on_a_tiny_model(tmp_path):
    """The command a GPU owner would run, on the CPU with a model of one layer; TRL beside it where it is installed."""
    pytest.importorskip("trl")
    command = [
        sys.executable, str(BENCHMARKS / "against_trl.py"), "--models", "micro", "--quick", "--device", "cpu",
        "--lengths", "varied", "--variants", "fp32", "--threads", "1", "--trl-python", sys.executable, "--out",
        str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=1200)
    cases = json.loads((tmp_path / "against_trl.json").read_text())["cases"]
    assert [case["task"] for case in cases] == ["sft", "rm", "dpo", "grpo", "rloo", "ppo", "ppo_trunk"]
    assert all({side["side"] for side in case["sides"]} == {"plaudit", "trl-fp32"} for case in cases)
