"""What a model's name means: a directory, a run, a GGUF file, or a name on the hub."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HFValidationError,
    HTTPError,  # of the HTTP client in use, whose name differs between versions
    RepositoryNotFoundError,
)

from plaudit.errors import ModelError
from plaudit.machine import reach_cure
from plaudit.models.files.integrity import verify
from plaudit.models.files.layout import CONFIG_FILE, base_named, is_adapter


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is: ``name`` is a hub name or a directory; ``gguf`` a file in it, or None.

    ``adapter`` is a directory with a LoRA adapter on that model, or None.
    """

    name: str
    gguf: str | None = None
    adapter: Path | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained`` that choose the file."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def resolve(source: str | Path) -> Source:
    """Find what ``source`` means.

    Args:
        source: hub name, model directory, run directory (its ``model/`` is taken), ``.gguf`` file, a directory
            with exactly one ``.gguf`` file, or a directory with a LoRA adapter.

    Raises:
        ModelError: a path that does not exist, a directory without a model, or a model that is not as it was saved.
    """
    path = Path(os.path.expanduser(source))
    if path.is_file():
        if path.suffix != ".gguf":
            cure = "give the directory that it is in"
            if path.suffix == ".py":
                cure = f"for a reward function write {source}:NAME"
            raise ModelError(f"{source} is a file, but not a .gguf file", cure=cure)
        return Source(str(path.parent), path.name)
    if path.is_dir():
        return _in_directory(path)
    # A mistyped path would otherwise be taken for a hub name, and the error would be one of the network.
    if _looks_local(str(source)):
        near = _nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ModelError(f"no model at {source}", cure=f"check the path{near}")
    _check_hub(str(source))
    return Source(str(source))


def _in_directory(path: Path) -> Source:
    # First of all: the file that is missing may be the one by which a model is known.
    for place in (path, path / "model"):
        verify(place)
    for place in (path, path / "model"):
        if is_adapter(place):
            return _adapted(place)
    if (path / "config.json").is_file():
        return Source(str(path))
    if (path / "model" / "config.json").is_file():
        return Source(str(path / "model"))
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return Source(str(path), ggufs[0].name)
    if ggufs:
        names = ", ".join(p.name for p in ggufs)
        raise ModelError(f"{path} has {len(ggufs)} GGUF files", cure=f"name one of them: {names}")
    raise ModelError(
        f"{path} holds no model", where=str(path), cure="a model directory has config.json, or one .gguf file"
    )


def _adapted(path: Path) -> Source:
    """The base of an adapter, with the adapter; of a reward model's adapter, the merged model around it."""
    if (path / "head.safetensors").is_file() and (path.parent / "config.json").is_file():
        return Source(str(path.parent))
    name = base_named(path)
    try:
        base = resolve(name)
    except ModelError as error:
        raise ModelError(
            f"the base of the adapter {path} cannot be found: {error.what}",
            where=str(path / CONFIG_FILE),
            cure=f"put it back, or write its new place into base_model_name_or_path ({error.cure})",
        ) from error
    if base.adapter is not None:
        raise ModelError(
            f"the base of the adapter {path} is itself an adapter: {name}",
            where=str(path / CONFIG_FILE),
            cure=f"merge that one first: plaudit export {name} --to merged",
        )
    return replace(base, adapter=path)


def _check_hub(name: str) -> None:
    """Raise at once if a hub name is wrong or the hub cannot be reached; a download would retry for a minute first."""
    # A model that was downloaded before needs no network.
    cached = _cached_names()
    if name in cached:
        return
    near = _nearest(name, cached)
    try:
        HfApi().model_info(name, timeout=10)
    except GatedRepoError:
        return
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"no model {name!r}: there is no such directory here, and none of this name on the hub",
            cure=f"check the spelling{near}; a private model needs HF_TOKEN",
        ) from error
    except (OSError, HTTPError) as error:
        raise ModelError(
            f"{name!r} is no directory here, and the hub cannot be reached to look for it",
            cure=f"check the spelling{near}; {reach_cure()}, or give a local directory",
        ) from error


def _looks_local(source: str) -> bool:
    parent = Path(source).parent
    near = parent != Path() and parent.is_dir()
    return near or source.startswith((".", "/", "~")) or source.endswith(".gguf") or source.count("/") > 1


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _cached_names() -> list[str]:
    """Hub names of the models that were downloaded before."""
    folder = Path(HF_HUB_CACHE)
    names = [p.name for p in folder.glob("models--*")] if folder.is_dir() else []
    return [name.removeprefix("models--").replace("--", "/") for name in names]
