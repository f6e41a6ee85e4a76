"""Batches whose gradient was not finite, for people to look at: ``bad_batches/step-000012.safetensors``, ``.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from plaudit.experience import Batch
from plaudit.runs.files import merge_json

FOLDER = "bad_batches"
MOST = 10
"""Batches that are kept of a run: the first ones say what is wrong, and all of them could fill the disk."""


def keep_batch(
    run: Path, step: int, batch: Batch, units: Sequence[int], metrics: Mapping[str, float]
) -> str:
    """Write the tensors of a batch, and which rows it was made of; where it is, in words.

    Args:
        run: the run directory.
        step: step or iteration in which it was to be learned from.
        units: the numbers of its rows, pairs or lists among those trained on, or among the responses of the iteration.
        metrics: of the step that was not taken.
    """
    folder = run / FOLDER
    path = folder / f"step-{step:06d}.safetensors"
    if not path.exists() and len(list(folder.glob("*.safetensors"))) >= MOST:
        return f"{folder} has {MOST} such batches already, and no more are kept"
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    # Copies: columns may share memory, which safetensors refuses, or be views of larger ones.
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in columns.items()
        if isinstance(value, Tensor)
    }
    broken = [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)
        facts = {"step": step, "units": units, "not_finite": broken, "metrics": metrics}
        merge_json(path.with_suffix(".json"), facts)
    except Exception as error:  # what the library raises for a full disk is no OSError
        return f"its batch could not be kept ({error})"
    seen = f", in which {', '.join(broken)} are not finite" if broken else ""
    return f"its batch is {path}{seen}"
