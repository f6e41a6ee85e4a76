"""The best weights of a run: one file, ``best/step-000008.safetensors``, which checkpoints name; and its start's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from plaudit.errors import MachineError
from plaudit.machine import check_space, make_folder, sync, writing
from plaudit.runs.checkpoint import NamedFile, needed_by_all

FIRST_FORMAT = "best.safetensors"
"""A checkpoint of the first release holds a copy of the best weights under this name."""


class BestWeights:
    """Keeps the weights that were best so far, and drops a file once nothing names it.

    A file of their own, not a copy in each checkpoint: they change seldom, and a checkpoint of a large model is then a
    third smaller.

    Args:
        run: the run directory.

    Attributes:
        file: the best weights now; None before the first.
        step: after which they were taken.
        held: names of files that a checkpoint needs which is being written.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.step = run, 0
        self.file: NamedFile | None = None
        self.held: set[str] = set()

    def keep(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the weights after ``step`` as the best; the earlier file stays as long as a checkpoint needs it.

        Raises:
            MachineError: the disk refused.
        """
        path = self._path(step)
        self._write(tensors, path, f"the best weights, of step {step}")
        self.file, self.step = NamedFile.of(self.run, path), step
        # At each change, not only with each checkpoint: a run without checkpoints would fill the disk.
        self.prune(self.run / "checkpoints")

    def keep_start(self, tensors: dict[str, Tensor]) -> None:
        """Write the weights of the start into ``best/start.safetensors``, until `forget_start`.

        No checkpoint names the file: a process that resumes has loaded the same weights before it restores its
        checkpoint, and writes them again.

        Raises:
            MachineError: the disk refused.
        """
        self._write(tensors, self._start, "the weights of the start")

    def start(self) -> dict[str, Tensor]:
        """What `keep_start` was given."""
        return load_file(self._start)

    def forget_start(self) -> None:
        """Nothing will go back to the start any more."""
        self._start.unlink(missing_ok=True)

    def tensors(self) -> dict[str, Tensor]:
        """The best weights."""
        assert self.file is not None, "weights have been kept"
        return load_file(self.run / self.file.name)

    def resume(self, checkpoint: Path, step: int, needed: NamedFile | None) -> None:
        """Go on with the best weights of a checkpoint that has been verified, after ``step``."""
        if needed is not None:
            self.file, self.step = needed, step
            return
        if not (checkpoint / FIRST_FORMAT).is_file():
            return  # nothing had been kept yet
        path = self._path(step)
        make_folder(path.parent)
        temporary = path.with_name(f".tmp-{path.name}")
        shutil.copyfile(checkpoint / FIRST_FORMAT, temporary)
        self._commit(temporary, path)
        self.file, self.step = NamedFile.of(self.run, path), step

    def prune(self, checkpoints: Path) -> None:
        """Remove the files that no checkpoint needs and that are not the best ones now."""
        needed = needed_by_all(checkpoints) | self.held | ({self.file.name} if self.file else set())
        for path in self._path(0).parent.glob("step-*.safetensors"):
            if path.relative_to(self.run).as_posix() not in needed:
                path.unlink()

    def _path(self, step: int) -> Path:
        return self.run / "best" / f"step-{step:06d}.safetensors"

    @property
    def _start(self) -> Path:
        return self.run / "best" / "start.safetensors"

    def _write(self, tensors: dict[str, Tensor], path: Path, what: str) -> None:
        temporary = path.with_name(f".tmp-{path.name}")
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        check_space(path, what, needed)
        try:
            with writing(path, what, needed=needed):
                make_folder(path.parent)
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
                self._commit(temporary, path)
        except MachineError:
            temporary.unlink(missing_ok=True)
            raise

    def _commit(self, temporary: Path, path: Path) -> None:
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
