"""Facts about the machine that `plaudit doctor` reports."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path

GIB = 2**30


def devices() -> list[str]:
    """One line on the CPU and memory, one on each GPU."""
    import torch

    lines = [
        f"cpu           {os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads{_memory()}"
    ]
    x = torch.ones(2, 2)
    assert float((x @ x).sum()) == 8.0, "matrix product on the CPU is wrong"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        name = torch.cuda.get_device_name(index)
        lines.append(f"cuda:{index}        {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, {bf16}")
    return (
        lines
        if torch.cuda.device_count()
        else [*lines, "gpu           none found; everything runs on the CPU"]
    )


def writable(out: Path) -> list[str]:
    """Problems with writing below ``out``."""
    try:
        with tempfile.TemporaryFile(dir=existing(out)) as file:
            file.write(b"plaudit")
    except OSError as error:
        return [f"cannot write to {out}: {error.strerror}"]
    return []


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def version(name: str) -> str:
    """Of an installed distribution; empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB memory"
    except (ValueError, OSError, AttributeError):
        return ""
