"""Backends for tests: a generator with weights of its own, and a learner in another process.

They share no tensor with the trainer, so they stand for what a cluster or an inference server does. What crosses to the
other process is safetensors, and what multiprocessing itself sends: names, numbers and algorithms.
"""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.errors import TrainingError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.generation.native import NativeGenerator
from plaudit.models.critic import Critic
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.policy import Policy


def not_finite(batch: Experience, out: Outputs) -> Loss:
    """A loss whose gradient is not finite."""
    assert out.logprobs is not None
    return Loss(out.logprobs.sum() * float("nan"))


def likelihood(batch: Experience, out: Outputs) -> Loss:
    """Negative log-likelihood of the rows."""
    assert out.logprobs is not None
    return Loss(batch.weighted_sum(-out.logprobs), {"nll": batch.weighted_sum(-out.logprobs).detach()})


COMPUTE = ComputeSection(device="cpu", precision="fp32", tokens_per_microbatch=64)


class OwnCopy:
    """A generator that draws from a copy of the policy, and knows of new weights only what it was told.

    Args:
        policy: copied.
        hears: whether it takes published weights; a generator that does not is broken.
        honest: whether its rollouts bear the version of the weights that they were drawn from.
    """

    def __init__(
        self,
        policy: Policy,
        tokenizer: Any,
        ends: tuple[int, ...],
        *,
        hears: bool = True,
        honest: bool = True,
    ) -> None:
        self._policy = copy.deepcopy(policy)
        self._inside = NativeGenerator(self._policy.lm, tokenizer, ends)
        self._hears, self._honest = hears, honest

    @torch.no_grad()
    def publish(self, weights: Any, version: int) -> None:
        """Copy the weights, if it hears at all."""
        if self._hears:
            own = dict(self._policy.named_parameters())
            for name, tensor in weights.tensors().items():
                own[name].copy_(tensor)
        if self._hears or not self._honest:
            self._inside.publish(weights, version)

    def generate(self, *args: Any, **options: Any) -> Any:
        """As the generator inside."""
        return self._inside.generate(*args, **options)


def build(model: str, role: str, optimizer: OptimizerSection, total_steps: int) -> LocalLearner:
    """The policy in a directory, or a critic on a copy of it with a zero head."""
    policy = Policy(load_causal_lm(model, tokenizer=load_tokenizer(model)))
    module = policy if role == "policy" else Critic.from_policy(policy.lm)
    return LocalLearner(module, optimizer, COMPUTE, total_steps=total_steps, name=role)


@dataclass(frozen=True)
class RemoteWeights:
    """A handle; its tensors come over the pipe."""

    learner: ProcessLearner

    def tensors(self) -> dict[str, Tensor]:
        """A copy."""
        return load(self.learner._ask("weights"))


class ProcessLearner:
    """A learner whose model and optimizer are in another process."""

    def __init__(self, model: str, role: str, optimizer: OptimizerSection, total_steps: int) -> None:
        # One server process imports torch once; each learner is then forked from it in a moment.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, model, role, optimizer.model_dump(), total_steps), daemon=True
        )
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    @property
    def step(self) -> int:
        return self._ask("step")

    def read(self, batch: Experience, *signals: str) -> list[Tensor]:
        found = load(self._ask("read", _packed(batch), signals))
        return [found[signal] for signal in signals]

    def update(self, batch: Experience, loss: Any, further: Any = ()) -> dict[str, float]:
        more = [(_packed(other), its_loss) for other, its_loss in further]
        return self._ask("update", _packed(batch), loss, more)

    def rest(self) -> None:
        self._ask("rest")

    def plan(self, total_steps: int, *, afresh: bool = False) -> None:
        self._ask("plan", total_steps, afresh)

    def weights(self) -> RemoteWeights:
        return RemoteWeights(self)

    def put_back(self, weights: Any) -> None:
        self._ask("put_back", save(dict(weights)))

    def save(self, directory: Path) -> None:
        self._ask("save", directory)

    def snapshot(self) -> Any:
        with tempfile.TemporaryDirectory() as place:
            self.save(Path(place))
            files = {path.name: path.read_bytes() for path in Path(place).iterdir()}

        def write(directory: Path) -> None:
            for name, content in files.items():
                (directory / name).write_bytes(content)

        return write

    def restore(self, directory: Path) -> None:
        self._ask("restore", directory)

    def export(self, directory: Path, tokenizer: Any) -> None:
        self._ask("export", directory, tokenizer)

    def _ask(self, verb: str, *args: Any) -> Any:
        self._pipe.send((verb, args))
        error, answer = self._pipe.recv()
        if error:
            what, where, cure = error
            raise TrainingError(what, where=where, cure=cure)
        return answer


def _packed(batch: Experience) -> bytes:
    columns = {f.name: value for f in fields(batch) if (value := getattr(batch, f.name)) is not None}
    return save({name: value.contiguous().clone() for name, value in columns.items()})


def _serve(pipe: Connection, model: str, role: str, optimizer: dict[str, Any], total_steps: int) -> None:
    """Answer verbs until the pipe is closed."""
    torch.set_num_threads(1)
    learner = build(model, role, OptimizerSection(**optimizer), total_steps)
    verbs = {
        "step": lambda: learner.step,
        "read": lambda batch, signals: save(
            dict(zip(signals, learner.read(Experience(**load(batch)), *signals), strict=True))
        ),
        "update": lambda batch, loss, further: learner.update(
            Experience(**load(batch)), loss, [(Experience(**load(b)), its_loss) for b, its_loss in further]
        ),
        "rest": learner.rest,
        "plan": lambda total, afresh: learner.plan(total, afresh=afresh),
        "weights": lambda: save(learner.weights().tensors()),
        "put_back": lambda weights: learner.put_back(load(weights)),
        "save": learner.save,
        "restore": learner.restore,
        "export": learner.export,
    }
    while True:
        try:
            verb, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, verbs[verb](*args)))
        except TrainingError as error:
            pipe.send(((error.what, error.where, error.cure), None))
