"""What a model's name means: a directory, a run, a GGUF file, or a name on the hub."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
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
from plaudit.models.files.integrity import verify


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is: ``name`` is a hub name or a directory; ``gguf`` a file in it, or None."""

    name: str
    gguf: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained`` that choose the file."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def resolve(source: str | Path) -> Source:
    """Find what ``source`` means.

    Args:
        source: hub name, model directory, run directory (its ``model/`` is taken), ``.gguf`` file, or a
            directory with exactly one ``.gguf`` file.

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
    _refuse_adapter(path)
    # First of all: the file that is missing may be the one by which a model is known.
    for place in (path, path / "model"):
        verify(place)
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


def _refuse_adapter(path: Path) -> None:
    """Raise if a directory holds an adapter and no model; transformers would look for its base and load that."""
    file = path / "adapter_config.json"
    if not file.is_file() or any(path.glob("model*.safetensors")) or any(path.glob("*.gguf")):
        return
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError, OSError):
        base = None
    cure = (
        "merge it first: peft.AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload().save_pretrained(NEW),"
        " with the tokenizer, and give NEW"
    )
    if (path.parent / "config.json").is_file():
        cure = f"give {path.parent}: the model with this adapter merged"
    raise ModelError(
        f"{path} is a LoRA adapter{f' for {base}' if base else ''}, not a model: it holds the changes only",
        where=str(file),
        cure=cure,
    )


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
            cure=f"check the spelling{near} and the network, or give a local directory",
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
