"""Ray: what the driver cuts and puts together, the same numbers on two workers, and processes that die."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.contracts.other_backends import build, likelihood
from tests.models.conftest import make_batch, make_rows

from plaudit import backends
from plaudit.backends.local.shards import Shards, bounds, part_of, shard_name
from plaudit.backends.ray.cluster import Cluster
from plaudit.backends.ray.hanging import LOOKS, HangWatch, Where
from plaudit.backends.ray.remote import RemoteLearner, shares
from plaudit.config.sections import (
    CheckpointSection,
    ComputeSection,
    DataSection,
    LogSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.errors import ConfigError, Lost, MachineError, TrainingError
from plaudit.experience import Experience
from plaudit.jobs.sft import SFTJob
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt
from plaudit.stages.anew import carried_through

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"
SECTION = OptimizerSection(lr=0.01, schedule="constant", warmup_fraction=0.0)
COMPUTE = ComputeSection(
    device="cpu", precision="fp32", tokens_per_microbatch=16, backend="ray", workers=2, generators=2
)


def rows(*lengths: int, groups: Any = None) -> Experience:
    batch = make_batch(make_rows(lengths=lengths))
    weights = batch.response_mask / batch.response_mask.sum()
    return batch.replace(loss_weights=weights, group_ids=None if groups is None else torch.tensor(groups))


def test_rows_are_shared_by_tokens_and_rows_of_one_prompt_stay_together() -> None:
    batch = rows(12, 3, 4, 5, 12, 3, groups=[7, 1, 1, 2, 7, 2])
    cut = shares(batch, 2)
    # Groups of 24, 8 and 7 tokens: the first goes to rank 0, the others to rank 1.
    assert [units.tolist() for units, _, _ in cut] == [[0, 4], [1, 2, 3, 5]]
    assert all(own for _, _, own in cut)
    assert torch.equal(cut[1][1].tokens, batch.select(torch.tensor([1, 2, 3, 5])).tokens)


def test_a_rank_without_rows_gets_a_copy_that_does_not_count() -> None:
    cut = shares(rows(5, 6), 3)
    assert sorted(units.tolist() for units, _, own in cut if own) == [[0], [1]]
    assert [own for _, _, own in cut] == [True, True, False]
    assert len(cut[2][1]) == 1


@pytest.mark.parametrize("wrote", [1, 2, 3])
@pytest.mark.parametrize("reads", [1, 2, 4])
def test_what_some_ranks_wrote_any_number_reads(wrote: int, reads: int, tmp_path: Path) -> None:
    whole = {"weight/a": torch.arange(10.0).reshape(5, 2), "weight/b": torch.arange(3.0), "step/a": torch.tensor(4.0)}
    for rank in range(wrote):
        parts = {name: part_of(tensor, rank, wrote).contiguous() for name, tensor in whole.items()}
        save_file(parts, tmp_path / shard_name("policy", rank, wrote), {"step": "7"})
    with Shards.of(tmp_path, "policy") as shards:
        assert shards.step == 7
        shards.check(["a", "b"])
        for name, tensor in whole.items():
            found = [shards.part(name, rank, reads) for rank in range(reads)]
            assert torch.equal(found[0] if tensor.dim() == 0 else torch.cat(found), tensor)
        with pytest.raises(TrainingError, match=r"1 tensors differ, the first is weight/c"):
            shards.check(["a", "b", "c"])


def test_a_missing_file_of_a_rank_is_said(tmp_path: Path) -> None:
    save_file({"weight/a": torch.zeros(2)}, tmp_path / shard_name("policy", 0, 2), {"step": "1"})
    with pytest.raises(TrainingError, match="has 1 of the 2 files of policy"):
        Shards.of(tmp_path, "policy")
    with pytest.raises(TrainingError, match="no file of critic"):
        Shards.of(tmp_path, "critic")


def test_the_rows_of_a_rank_by_hand() -> None:
    assert [bounds(5, rank, 4) for rank in range(4)] == [(0, 2), (2, 4), (4, 5), (5, 5)]
    assert [bounds(4, rank, 2) for rank in range(2)] == [(0, 2), (2, 4)]


def test_without_ray_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs the package ray") as error:
        backends.check(COMPUTE)
    assert "plaudit[ray]" in error.value.cure


@pytest.mark.parametrize("address", ["here", "ray://here:10001", "here:port", ":6379"])
def test_what_is_no_address_of_a_cluster_is_said(address: str) -> None:
    pytest.importorskip("ray", reason="pip install 'plaudit[ray]'")
    with pytest.raises(ConfigError, match="is no address of a Ray cluster"):
        backends.check(COMPUTE.model_copy(update={"ray_address": address}))


def test_a_cluster_that_does_not_answer_is_said_at_once() -> None:
    pytest.importorskip("ray", reason="pip install 'plaudit[ray]'")
    with socket.socket() as nobody:  # bound and not listening: the system refuses whoever comes
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(MachineError, match=f"no Ray cluster can be reached at {address}"):
            backends.check(COMPUTE.model_copy(update={"ray_address": address}))


class Looks:
    """Ranks that are at given places, look after look; and a clock that moves on by half a minute a look."""

    def __init__(self, *places: dict[str, Where | None]) -> None:
        self.places, self.time = list(places), 0.0

    def __call__(self, names: Any) -> dict[str, Where | None]:
        return self.places.pop(0)

    def watched(self) -> None:
        watch = HangWatch(self, "a step", lambda: self.time)
        watch.look(["worker 0"])  # too early: it does not ask
        while self.places:
            self.time += 90
            watch.look(["worker 0", "worker 1"])


COUNTS, SUMS = Where(False, "linear.py:1 in forward", "..."), Where(True, "fsdp.py:7 in wait", "...")


@pytest.mark.parametrize(
    "places",
    [
        [{"worker 0": SUMS, "worker 1": COUNTS}] * 9,
        [{"worker 0": SUMS, "worker 1": None}] * (LOOKS - 1) + [{"worker 0": SUMS, "worker 1": COUNTS}] * 2,
        [{"worker 0": SUMS, "worker 1": replace(SUMS, stack=str(i))} for i in range(9)],
    ],
    ids=["one computes", "one answered late", "they get on"],
)
def test_ranks_that_get_on_do_not_hang(places: Any) -> None:
    Looks(*places).watched()


def test_ranks_that_wait_for_each_other_are_named() -> None:
    with pytest.raises(Lost, match="worker 1 does not run, worker 0 waits in fsdp.py:7 in wait"):
        Looks(*[{"worker 0": SUMS, "worker 1": None}] * LOOKS).watched()
    other = Where(True, "elsewhere.py:3 in wait", "...")
    with pytest.raises(Lost, match="worker 0 waits in fsdp.py:7 in wait, worker 1 waits in elsewhere.py:3"):
        Looks(*[{"worker 0": SUMS, "worker 1": other}] * LOOKS).watched()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SFTJob:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)
    tiny_lm("llama", tokenizer, hidden=16, layers=2, scale=0.3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "d.jsonl").write_text('{"prompt": "the", "response": " cat"}\n')
    return SFTJob(model=str(folder), dataset=str(folder / "d.jsonl"), out="never", optimizer=SECTION, compute=COMPUTE)


@pytest.fixture(scope="module")
def runtime(job: SFTJob) -> Any:
    ray = pytest.importorskip("ray", reason="pip install 'plaudit[ray]'")
    yield backends.open(job)
    ray.shutdown()


def apart(first: Any, second: Any, before: dict[str, torch.Tensor]) -> float:
    """How far the weights of two learners are apart, as a share of how far they went.

    Not weight by weight: where a gradient is all rounding, AdamW makes a whole step of it.
    """
    ours, theirs = first.weights().tensors(), second.weights().tensors()
    difference, way = (
        torch.cat([(ours[name] - other[name]).flatten() for name in ours]).norm() for other in (theirs, before)
    )
    return float(difference / way)


@pytest.mark.ray
def test_two_workers_train_as_one_process_does_and_read_each_others_files(
    job: SFTJob, runtime: Any, tmp_path: Path
) -> None:
    here, there = build(job.model, "policy", SECTION, 10), runtime.learner
    there.plan(10)
    first = here.weights().tensors()
    batches = [rows(11, 5, 8, 9, 7, 12), rows(6), rows(4, 9, 9)]  # the second has no row for the other rank
    for batch in batches:
        assert torch.allclose(here.read(batch, "logprobs")[0], there.read(batch, "logprobs")[0], atol=1e-5)
        ours, theirs = here.update(batch, likelihood), there.update(batch, likelihood)
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
    assert apart(there, here, first) < 0.01

    there.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [shard_name("policy", r, 2) for r in range(2)]
    here.restore(tmp_path)
    assert here.step == 3
    kept = there.weights().tensors()
    assert all(torch.equal(kept[name], tensor) for name, tensor in here.weights().tensors().items())
    here.update(batches[0], likelihood)
    there.update(batches[0], likelihood)
    assert apart(there, here, kept) < 0.01, "the moments came along"

    there.restore(tmp_path)
    assert all(torch.equal(kept[name], tensor) for name, tensor in there.weights().tensors().items())
    with_one = tmp_path / "one"
    with_one.mkdir()
    here.save(with_one)
    there.restore(with_one)
    assert there.step == 4
    assert all(torch.equal(there.weights().tensors()[name], t) for name, t in here.weights().tensors().items())


@pytest.mark.ray
def test_more_workers_than_processors_are_refused(runtime: Any) -> None:
    with pytest.raises(ConfigError, match="4999 workers need 4999 CPUs, and the cluster has"):
        Cluster(COMPUTE.model_copy(update={"workers": 4999}))


@pytest.mark.ray
def test_what_a_generator_was_asked_that_died_is_drawn_again_the_same(runtime: Any) -> None:
    generators = runtime.generator
    generators.publish(runtime.learner.weights(), 3)
    prompts = [TokenPrompt(Prompt(f"p{i}", ""), (5 + i, 6, 7)) for i in range(4)]

    def drawn() -> list[Any]:
        return generators.generate(prompts, 2, SamplingSection(max_new_tokens=8), seed=1, iteration=2)

    before = drawn()
    assert [(r.group_id, r.policy_version) for r in before] == [(i // 2, 3) for i in range(8)]
    cluster = generators._cluster
    os.kill(cluster.ray.get(generators._samplers[1].ping.remote()), signal.SIGKILL)
    again = drawn()
    assert [r.response_ids for r in again] == [r.response_ids for r in before]
    assert [r.logprobs for r in again] == [r.logprobs for r in before]
    assert {r.policy_version for r in again} == {3}, "it was told the weights anew"


@pytest.mark.ray
def test_a_rank_that_does_not_run_is_named_with_the_stacks_of_the_others(
    runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("hanging.SILENT", 1.0), ("hanging.BETWEEN", 0.5), ("group.TO_SAY", 2.0)):
        monkeypatch.setattr(f"plaudit.backends.ray.{name}", seconds)
    group = runtime.learner.group
    frozen = group.cluster.ray.get(group.workers[1].ping.remote())
    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(Lost, match="worker 1 does not run, worker 0 waits in") as error:
        runtime.learner.update(rows(5, 6), likelihood)
    assert "step_on" in error.value.stacks and "worker 1\ndoes not say where it is" in error.value.stacks


@pytest.mark.ray
def test_a_second_run_in_one_process_finds_room_also_after_a_rank_that_hangs(job: SFTJob, runtime: Any) -> None:
    # The first one is still referred to, and holds as many processors as there are.
    again = backends.open(job)
    batch = rows(5, 6)
    assert torch.isfinite(again.learner.read(batch, "logprobs")[0]).all()


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_that_loses_a_worker_goes_on_and_ends_the_same(
    job: SFTJob, runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "d.jsonl"
    texts = [f'{{"prompt": "the {one}", "response": " sat on {one}"}}\n' for one in WORDS.split()]
    data.write_text("".join(texts))
    changed = {"dataset": str(data), "batch_size": 4, "epochs": 2, "checkpoint": CheckpointSection(every=3)}
    quiet = {"log": LogSection(progress=False, tensorboard=False), "data": DataSection(eval_fraction=0.0)}
    whole = job.model_copy(update=changed | quiet)
    plain = carried_through(whole.model_copy(update={"out": str(tmp_path / "plain")}))
    update, kills = RemoteLearner.update, [5]

    def updated(learner: RemoteLearner, *args: Any, **options: Any) -> dict[str, float]:
        kills[0] -= 1
        if kills[0] == 0:
            worker = learner.group.workers[1]
            os.kill(learner.group.cluster.ray.get(worker.ping.remote()), signal.SIGKILL)
        return update(learner, *args, **options)

    monkeypatch.setattr(RemoteLearner, "update", updated)
    run = carried_through(whole.model_copy(update={"out": str(tmp_path / "run")}))
    said = capsys.readouterr().out
    assert kills[0] < 0 and "worker 1 ended while the run waited for a step of the policy" in said
    ours, theirs = ((at / "model" / "model.safetensors").read_bytes() for at in (run, plain))
    assert ours == theirs
