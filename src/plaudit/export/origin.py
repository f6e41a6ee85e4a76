"""What an exported model was made from, and under which licence that is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from huggingface_hub import try_to_load_from_cache

from plaudit.errors import DataError, ModelError
from plaudit.models.files.source import Source, resolve
from plaudit.runs.lock import read_manifest

MOST = 20
"""Runs that are followed from one to the next."""


@dataclass(frozen=True)
class Origin:
    """The chain from a model to what it was first made from."""

    bases: tuple[str, ...]
    """Names, the nearest first: of a hub, or of a directory or file without the folders that it lies in."""
    hub: str
    """Name of the last on a hub; empty where it is a directory or a file."""
    licence: str
    """As the last of them states it; empty where it does not."""

    @classmethod
    def of(cls, source: str) -> Origin:
        """The origin of a run, of a model or adapter directory, of a hub name or of a GGUF file."""
        bases: list[str] = []
        hub, licence, here = "", "", source
        for _ in range(MOST):
            place = _place(here)
            licence = _licence(place) or licence
            before = _before(here, place)
            if not before or before in bases:
                break
            bases.append(before)
            here = before
        last = bases[-1] if bases else ""
        if last and not Path(last).exists() and "/" in last and not last.startswith(("/", ".", "~")):
            hub = last
        return cls(tuple(last if name == hub else Path(name).name for name in bases), hub, licence)


def _before(source: str, place: Source | None) -> str:
    """What a model was made from: a run says so in its manifest, an adapter in its config."""
    folder = Path(source)
    # Any directory has a parent: only its model is the run's.
    for run in (folder, folder.parent) if folder.name == "model" else (folder,):
        settings = _settings(run)
        named = [settings[key] for key in ("policy", "model") if isinstance(settings.get(key), str)]
        if any(named):
            return next(name for name in named if name)
    return "" if place is None or place.adapter is None else place.name


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = read_manifest(run).get("settings", {}) if run.is_dir() else {}
    except DataError:
        return {}
    return settings


def _place(source: str) -> Source | None:
    try:
        return resolve(source)
    except ModelError:
        return None  # it has been moved or deleted since, or the hub cannot be asked


def _licence(place: Source | None) -> str:
    if place is None:
        return ""
    if place.gguf:
        field = gguf.GGUFReader(str(Path(place.name) / place.gguf)).fields.get("general.license")
        return str(field.contents()) if field is not None else ""
    card: Any = Path(place.name) / "README.md"
    if not Path(place.name).is_dir():
        card = try_to_load_from_cache(place.name, "README.md")
    if not isinstance(card, (str, Path)) or not Path(card).is_file():
        return ""
    text = Path(card).read_text(encoding="utf-8", errors="replace")
    head = re.match(r"\A---\s*\n(.*?)\n---", text, re.DOTALL)
    line = re.search(r"^license:\s*['\"]?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return "" if line is None or line[1] == "unknown" else line[1]
