"""The files of learners: one, or one of each rank that a model is spread over; any number of ranks reads them again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor

from plaudit.errors import TrainingError
from plaudit.models.files.integrity import refuse_non_finite

NAMED = re.compile(r"(?P<name>.+)\.(?P<rank>\d+)-of-(?P<ranks>\d+)\.safetensors")


def shard_name(name: str, rank: int, ranks: int) -> str:
    """Of the file of one rank."""
    return f"{name}.{rank}-of-{ranks}.safetensors"


def bounds(rows: int, rank: int, ranks: int) -> tuple[int, int]:
    """First row, and the one after the last, of a tensor of ``rows`` rows that one rank holds, as FSDP2 cuts it.

    >>> [bounds(5, rank, 4) for rank in range(4)]
    [(0, 2), (2, 4), (4, 5), (5, 5)]
    """
    each = -(-rows // ranks)
    return min(rank * each, rows), min((rank + 1) * each, rows)


def part_of(tensor: Tensor, rank: int, ranks: int) -> Tensor:
    """The rows of a whole tensor that one rank holds; a number is whole on each of them."""
    if tensor.dim() == 0:
        return tensor
    first, end = bounds(len(tensor), rank, ranks)
    return tensor[first:end]


class Shards:
    """What the ranks of a learner wrote, read as if it were one file. A context manager: files are open within it.

    Args:
        paths: of the files, in the order of ranks.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths, self._stack = list(paths), contextlib.ExitStack()
        self._files: list[Any] = []

    @classmethod
    def of(cls, directory: Path, name: str) -> Self:
        """Of a learner's name; a file that was written by a learner in one process counts as one shard.

        Raises:
            TrainingError: files are missing.
        """
        plain = directory / f"{name}.safetensors"
        if plain.is_file():
            return cls([plain])
        found = {
            int(match["rank"]): (int(match["ranks"]), path)
            for path in directory.iterdir()
            if (match := NAMED.fullmatch(path.name)) and match["name"] == name
        }
        ranks = max((count for count, _ in found.values()), default=0)
        if not found or sorted(found) != list(range(ranks)):
            there = f"{len(found)} of the {ranks} files of {name}" if found else f"no file of {name}"
            raise TrainingError(
                f"the checkpoint has {there}",
                where=str(directory),
                cure="delete this checkpoint; the run goes on from the one before",
            )
        return cls(found[rank][1] for rank in sorted(found))

    def __enter__(self) -> Self:
        self._files = [self._stack.enter_context(safe_open(path, "pt")) for path in self.paths]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def step(self) -> int | None:
        """Optimizer steps that its schedule has counted; None in a file of the first release."""
        found = (self._files[0].metadata() or {}).get("step")
        return None if found is None else int(found)

    def has(self, key: str) -> bool:
        """Whether there is a tensor of this name."""
        return key in self._files[0].keys()  # noqa: SIM118

    def check(self, parameters: Iterable[str]) -> None:
        """Make sure that they hold these parameters and no others.

        Raises:
            TrainingError: they do not.
        """
        expected = {f"weight/{name}" for name in parameters}
        stored = {name for name in self._files[0].keys() if name.startswith("weight/")}  # noqa: SIM118
        if expected != stored:
            odd = sorted(expected ^ stored)
            raise TrainingError(
                f"the checkpoint is of another model: {len(odd)} tensors differ, the first is {odd[0]}",
                where=str(self.paths[0]),
                cure="resume with the model and the LoRA settings the run was started with",
            )

    def part(self, key: str, rank: int, ranks: int) -> Tensor:
        """The rows of a tensor that one of ``ranks`` ranks holds; only these are read.

        Raises:
            ModelError: a value in it is not finite.
        """
        slices = [file.get_slice(key) for file in self._files]
        shapes = [one.get_shape() for one in slices]
        if not shapes[0]:
            number: Tensor = self._files[0].get_tensor(key)
            return number
        first, end = bounds(sum(shape[0] for shape in shapes), rank, ranks)
        parts, before = [], 0
        for one, shape in zip(slices, shapes, strict=True):
            low, high = max(first - before, 0), min(end - before, shape[0])
            if low < high:
                parts.append(one[low:high])
            before += shape[0]
        found = torch.cat(parts) if parts else slices[0][:0]
        refuse_non_finite([(key, found)], self.paths[0])
        return found
