"""SHA-256 of every file of a saved model, beside it; and weights that are no numbers.

Neither safetensors nor JSON has a checksum of its own: a flipped bit loads without a word. The file ``SHA256SUMS`` has
the form that ``sha256sum -c SHA256SUMS`` checks, so that nobody needs Plaudit for it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from plaudit.errors import ModelError

SUMS = "SHA256SUMS"


def seal(path: Path) -> None:
    """Write the SHA-256 of every file of a model that has been saved at ``path``, in sub-folders too."""
    # Last, and in place of an earlier file by one rename: a save that is interrupted leaves files that do not fit the
    # sums of the save before, and is found out.
    lines = [
        f"{_sha256(file)}  {file.relative_to(path).as_posix()}\n"
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (SUMS, f"{SUMS}.partial")
    ]
    partial = path / f"{SUMS}.partial"
    with partial.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path / SUMS)


def verify(path: Path) -> None:
    """Make sure that a model at ``path`` is as it was saved; one without sums, such as a download, is not judged.

    Raises:
        ModelError: a file is missing or has changed; names it.
    """
    try:
        stated = _stated(path / SUMS)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{SUMS} cannot be read ({error})") from error
    for name, digest in stated:
        try:
            now = (path / name).stat()
            found = _known(str(path / name), now.st_size, now.st_mtime_ns, now.st_ino)
        except FileNotFoundError:
            raise _damaged(path, f"its file {name} is missing") from None
        if found != digest:
            raise _damaged(path, f"its file {name} is not the one that was saved")


def _stated(sums: Path) -> list[tuple[str, str]]:
    """Names and digests, as they stand in a file of sums."""
    rows = []
    for number, line in enumerate(sums.read_text(encoding="utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        parts = Path(name).parts
        if len(digest) != 64 or not parts or Path(name).is_absolute() or ".." in parts:
            raise ValueError(f"line {number} is no SHA-256 with the name of a file beside it: {line[:80]!r}")
        rows.append((name, digest))
    if not rows:
        raise ValueError("it is empty")
    return rows


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(
        f"the model at {path} is damaged: {what}",
        where=str(path / SUMS),
        cure=f"copy or save the model again; if you changed that file yourself, delete {path / SUMS}",
    )


@functools.lru_cache(maxsize=4096)
def _known(path: str, size: int, changed: int, inode: int) -> str:
    """The digest of a file. A run reads one model several times (tokenizer, policy, critic), and hashes it once."""
    return _sha256(Path(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], source: str | Path) -> None:
    """Make sure that all weights are numbers.

    Raises:
        ModelError: NaN or infinity in a tensor; names it, and says how many.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        # Smallest and largest: one pass without a mask as large as the weights. NaN is both of them.
        low, high = torch.aminmax(tensor.detach())
        if bool(low.isfinite()) and bool(high.isfinite()):
            continue
        count = int((~tensor.detach().isfinite()).sum())
        raise ModelError(
            f"the weights of {source} are not all finite: {count} of {tensor.numel()} numbers of the tensor {name} are"
            " NaN or infinite",
            where=str(source),
            cure="take the model from before its training diverged, or get its files again",
        )
