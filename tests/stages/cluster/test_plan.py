"""`plaudit plan`: the arithmetic by hand, the saved measurements, calibration, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from plaudit import backends
from plaudit.backends.ray.memory import PROCESS
from plaudit.backends.spread import Alone, Needs, Pass, Shared, fits, gpu
from plaudit.cli.main import main
from plaudit.config.sections import ComputeSection, DataSection, SamplingSection
from plaudit.errors import ConfigError, DataError, Unplanned
from plaudit.jobs.online import GRPOJob
from plaudit.jobs.reward_tables import RuleTable
from plaudit.models.files.sizes import SHAPES, size_named
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt
from plaudit.runtime import SLACK, Room
from plaudit.stages.cluster.times import Calibration, Measured, time_table

PUBLISHED = {
    "135M": 134_515_008, "360M": 361_821_120, "0.5B": 494_032_768, "1B": 1_235_814_400, "1.5B": 1_543_714_304,
    "1.7B": 1_711_376_384, "3B": 3_212_749_824, "7B": 7_615_616_512, "8B": 8_030_261_248, "14B": 14_770_033_664,
    "32B": 32_763_876_352, "70B": 70_553_706_496, "405B": 405_853_388_800,
}  # fmt: skip
"""Parameters of the models, from their publishers' pages."""
NEEDS = Needs(
    roles={
        "policy": Shared(800, 1600, root=200, layer=100, learned_root=80, learned_layer=100),
        "reference": Shared(800, 0, root=200, layer=100, learned_root=0, learned_layer=0),
    },
    passes={"scoring": Pass("policy", 50), "updating the policy": Pass("policy", 70, 800)},
    generator=Alone(800, {"sampling": {"KV cache": 30, "generation": 40}}),
    rewards={"reward": Alone(500, {"reward: scoring": {"activations": 20}})},
)


@pytest.mark.parametrize("size", SHAPES)
def test_the_shapes_have_as_many_parameters_as_were_published(size: str) -> None:
    name, (width, mlp, layers, heads, kv_heads), more = SHAPES[size]
    kv = width // heads * kv_heads
    layer = 2 * width * width + 2 * width * kv + 3 * width * mlp + 2 * width
    layer += width + 2 * kv if name.startswith("Qwen") else 0  # biases of queries, keys and values
    embeddings = more["vocab_size"] * width * (1 if more.get("tie_word_embeddings") else 2)
    assert embeddings + layers * layer + width == PUBLISHED[size]
    assert size_named(size.lower()) == size


def test_a_worker_by_hand() -> None:
    held, passing = NEEDS.on_a_worker(4)
    assert held == {"policy": 200, "optimizer, policy": 400, "reference": 200}
    assert passing["scoring"] == {"activations": 50, "gathered": 200 + 2 * 100}
    # What is put together: root and two layers; the head's gradient and two layers' gradients.
    assert passing["updating the policy"] == {"gradients": 200, "activations": 70, "gathered": 400 + 80 + 200}
    assert NEEDS.on_a_worker(3)[0]["policy"] == 267, "a part is rounded up"
    assert NEEDS.loading == 1600, "the policy and its copy"


def test_layouts_by_hand() -> None:
    room = gpu(1_000_002_500)  # 2500 bytes beside those of CUDA
    workers, generator, reward = NEEDS.separate(4, 2, room)
    assert [(p.kind, p.count) for p in (workers, generator, reward)] == [("worker", 4), ("generator", 2), ("reward", 1)]
    assert workers.plan.need == 800 + 950 + int(SLACK * 950)
    assert generator.plan.need == 800 + 70 + int(SLACK * 70)
    assert reward.plan.need == 500 + 20 + int(SLACK * 20)
    assert fits([workers, generator, reward])
    fullest, others = NEEDS.colocated(7, room)
    assert (fullest.count, others.count) == (1, 6)
    # A seventh of what workers share, the whole policy of the generator, the reward, and the largest moment.
    held = math.ceil(800 / 7) + math.ceil(1600 / 7) + math.ceil(800 / 7) + 800
    assert sum(others.plan.held.values()) == held
    assert sum(fullest.plan.held.values()) == held + 500
    assert not fits([*NEEDS.colocated(1, room)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lm") / "model"
    tokenizer = tiny_tokenizer(["the cat sat on a mat"], 64, chat=False)
    tiny_lm("llama", tokenizer, hidden=16, layers=1).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def run_of(folder: Path, model: Path, workers: int, generators: int, **times: float) -> Path:
    """A run directory as a run on Ray workers leaves it, with three iterations of which the first is slow."""
    folder.mkdir()
    (folder / "model").symlink_to(model)
    lines = [
        "prompts_per_iteration = 8  # default", "[algorithm]", 'type = "grpo"  # default', "group_size = 4  # default",
        "[compute]", 'backend = "ray"  # command line', f"workers = {workers}  # command line",
        f"generators = {generators}  # command line",
    ]  # fmt: skip
    (folder / "config.toml").write_text("\n".join(lines) + "\n")
    (folder / "summary.json").write_text('{"command": "grpo"}')
    parts = {"generate": 0.0, "reward": 0.0, "score": 0.0, "update": 0.0, "publish": 0.0} | times
    rows = [
        {"step": n, "response/length_mean": 20.0} | {f"time/{part}": t * slow for part, t in parts.items()}
        for n, slow in ((1, 9), (2, 1), (3, 1))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def measured_with(run: Path, model: Path, workers: int, generators: int) -> Measured:
    # Of 32 responses: 16 s of generation that are shared, 2 s that are not; 32 s of updates; 3 s of the reward.
    times = {"generate": 2 + 16 / generators, "update": 32 / workers, "reward": 3.0, "publish": 0.5}
    return Measured.of(run_of(run, model, workers, generators, **times))


def test_two_runs_tell_what_is_shared_from_what_is_not(tmp_path: Path, model: Path) -> None:
    runs = [measured_with(tmp_path / "a", model, 1, 1), measured_with(tmp_path / "b", model, 4, 2)]
    assert runs[0].iterations == 2 and runs[0].responses == 32, "the first iteration is left out"
    Calibration(runs).save(tmp_path / "c.json")
    rates = Calibration.load(tmp_path / "c.json").rates()
    assert rates["generate"] == pytest.approx((2 / 32, 16 / 32))
    assert rates["update"] == pytest.approx((0, 1))
    assert rates["publish"] == pytest.approx((0, 0.5))
    # One run knows no line: everything counts as shared.
    assert Calibration(runs[1:]).rates()["generate"] == pytest.approx((0, 10 * 2 / 32))


def test_the_bottleneck_moves_as_gpus_are_added(tmp_path: Path, model: Path) -> None:
    runs = [measured_with(tmp_path / "a", model, 1, 1), measured_with(tmp_path / "b", model, 4, 2)]
    job = GRPOJob(policy="never", dataset="never", prompts_per_iteration=8)
    job = job.model_copy(update={"algorithm": type(job.algorithm)(group_size=4)})
    rows = time_table(Calibration(runs), job, 64, rewards=1)
    assert [row.gpus for row in rows] == [4, 8, 16, 32, 64]
    assert all(row.workers + row.generators + 1 == row.gpus for row in rows)
    assert [row.bottleneck for row in rows] == ["generate", "update", "generate", "generate", "reward"]
    # 4 GPUs: two workers and one generator, 16 + 18 + 3 + 0.5; the other split takes 32 + 10 + 3 + 0.5.
    assert rows[0].total == pytest.approx(37.5)
    totals = [row.total for row in rows]
    assert totals == sorted(totals, reverse=True)


def test_what_is_no_calibration_is_said(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "a", model, 1, 1, update=1)
    (run / "config.toml").write_text('[compute]\nbackend = "local"  # default\n')
    with pytest.raises(DataError, match="was not on Ray workers"):
        Measured.of(run)
    short = run_of(tmp_path / "b", model, 1, 1, update=1)
    (short / "metrics.jsonl").write_text((short / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="no iterations with times, after the first"):
        Measured.of(short)
    with pytest.raises(DataError, match="there is no such file"):
        Calibration.load(tmp_path / "nowhere.json")
    for text in ("[]", "{}", '{"format": 1, "runs": [{"run": "x"}]}'):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(DataError, match="no calibration file"):
            Calibration.load(tmp_path / "c.json")
    one = Calibration([measured_with(tmp_path / "d", model, 1, 1)])
    job = GRPOJob(policy="never", dataset="never")
    with pytest.raises(ConfigError, match="times of one are none of the other"):
        one.check(job, 2 * one.runs[0].parameters, "grpo")
    with pytest.raises(ConfigError, match="times of one are none of the other"):
        one.check(job, one.runs[0].parameters, "ppo")


def test_doctor_counts_all_processes_of_a_cluster_on_this_machine(model: Path, monkeypatch: Any) -> None:
    compute = ComputeSection(device="cpu", precision="fp32", threads=1, backend="ray", workers=3, generators=2)
    job = GRPOJob(
        policy=str(model), dataset="never", compute=compute, data=DataSection(max_length=64),
        reward=(RuleTable(rule="length", words=4),), sampling=SamplingSection(max_new_tokens=16),
    )  # fmt: skip
    plan = backends.plan(job, [Prompt(f"p{i}", "the cat") for i in range(40)])
    policy = 4 * backends.parameters(str(model))
    assert plan.held["policy"] == pytest.approx(policy, rel=0.01)
    assert plan.held["optimizer, policy"] == pytest.approx(2 * policy, rel=0.01)
    assert plan.held["generators"] == pytest.approx(2 * policy, rel=0.01)
    assert plan.held["processes of the cluster"] == 6 * PROCESS, "three workers, two generators, the reward"
    assert plan.passing["updating the policy"]["gradients"] == pytest.approx(policy, rel=0.01)
    large = Room(10**12, 10**12, "this machine", 10**9)
    monkeypatch.setattr("plaudit.backends.ray.memory.room_of", lambda device: large)
    assert backends.plan(job, [], in_full=False).rough, "a small run does not wait for the whole plan"
    far = job.model_copy(update={"compute": compute.model_copy(update={"ray_address": "10.0.0.1:6379"})})
    with pytest.raises(Unplanned, match="runs elsewhere") as error:
        backends.plan(far, [])
    assert "plaudit plan" in error.value.cure


def test_the_command(tmp_path: Path, model: Path, capsys: Any) -> None:
    words = ["plan", "grpo", "--model", str(model), "--reward", "rule:length:4", "--max-length", "64"]
    words += ["--max-new-tokens", "16", "--threads", "1"]
    runs = [str(run_of(tmp_path / "a", model, 1, 1, generate=4, update=2))]
    assert main(["plan", "--calibrate", *runs, "--to", str(tmp_path / "c.json")]) == 0
    capsys.readouterr()
    assert main([*words, "--gpus", "8", "--json", "--calibration", str(tmp_path / "c.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    separate = found["memory"]["layouts"]["separate"]
    assert separate["fits"] and found["memory"]["warnings"] == []
    assert [(p["kind"], p["count"]) for p in separate["processes"]] == [("worker", 5), ("generator", 2), ("reward", 1)]
    assert [row["gpus"] for row in found["time"]["table"]] == [4, 8]
    # Five workers hold a fifth of the weights each, two moments of all of them, and the reference.
    held = separate["processes"][0]["held"]
    assert held["optimizer, policy"] == pytest.approx(2 * held["policy"], rel=0.01)
    assert held["policy"] == pytest.approx(4 * found["memory"]["parameters"] / 5, rel=0.01)
    assert held["reference"] == pytest.approx(held["policy"], rel=0.01)
    assert main([*words, "--gpus", "2"]) == 78
    assert "too few" in capsys.readouterr().err
    assert main(words) == 78
    assert "--gpus is not set" in capsys.readouterr().err
    assert main([*words, "--gpus", "8", "--calibration", str(tmp_path / "none.json")]) == 65


def test_what_does_not_fit_says_what_would(model: Path, capsys: Any) -> None:
    words = ["plan", "sft", "--model", str(model), "--max-length", "16", "--threads", "1", "--batch-size", "768"]
    words += ["--gpus", "4", "--json"]

    def planned(*more: str) -> dict[str, Any]:
        assert main([*words, *more]) == 0
        memory: dict[str, Any] = json.loads(capsys.readouterr().out)["memory"]
        return memory

    many = ("--tokens-per-microbatch", "2048")
    need = planned(*many)["layouts"]["separate"]["processes"][0]["need"]
    small = ("--gpu-memory", f"{1 + 0.8 * need / 1e9:.9f}")  # 1 GB is CUDA's
    found = planned(*many, *small)
    assert not found["layouts"]["separate"]["fits"]
    assert "a worker needs" in found["warnings"][0]
    advice = next(text for text in found["warnings"] if text.startswith("it fits with "))
    cure = advice.removeprefix("it fits with ").split()
    flags = many if "--tokens-per-microbatch" not in cure else ()
    assert planned(*flags, *cure, *small)["layouts"]["separate"]["fits"], "what it says makes it fit"


def test_the_plan_of_a_worker_is_near_what_was_measured():
    """By scripts/cluster_memory.py, on ranks that run what a worker runs; the figures of the page."""
    rows = json.loads((Path(__file__).parents[3] / "docs" / "why" / "cluster-memory.json").read_text("utf-8"))
    ratios = {name: row["planned"]["peak"] / row["measured"]["peak"] for name, row in rows.items()}
    assert len(ratios) >= 6 and all(1 / 1.15 <= ratio <= 1.15 for ratio in ratios.values()), ratios
