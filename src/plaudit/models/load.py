"""Models and tokenizers by hub name, directory, run directory, or GGUF file. Safetensors only; no remote code is run."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plaudit.errors import ModelError
from plaudit.models.vocabulary import ensure_pad, fit_vocabulary

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model lies: ``name`` is a hub name or a directory; ``gguf`` the file in it, if it is one."""

    name: str
    gguf: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained`` that choose the file."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def resolve(source: str | Path) -> Source:
    """Find what ``source`` means.

    Args:
        source: hub name, model directory, run directory (its ``model/`` is taken), ``.gguf`` file, or a directory
            with exactly one ``.gguf`` file.

    Raises:
        ModelError: a path that does not exist, or a directory without a model.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{source} is a file, but not a .gguf file", cure="give the directory it lies in")
        return Source(str(path.parent), path.name)
    if path.is_dir():
        return _in_directory(path)
    if _looks_local(str(source)):
        near = _nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ModelError(f"no model at {source}", cure=f"check the path{near}")
    return Source(str(source))


def _in_directory(path: Path) -> Source:
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
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"{path} holds a LoRA adapter only", cure="merge it into its base model and save that")
    raise ModelError(
        f"{path} holds no model", where=str(path), cure="a model directory has config.json, or one .gguf file"
    )


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model, with a pad token of its own (one that is not the end token).

    Raises:
        ModelError: there is none, or the hub cannot be reached.
    """
    place = resolve(source)
    tokenizer: PreTrainedTokenizerBase = _load(
        lambda: AutoTokenizer.from_pretrained(place.name, **place.options), source, "tokenizer"
    )
    ensure_pad(tokenizer)
    tokenizer.padding_side = "right"
    return tokenizer


def load_causal_lm(
    source: str | Path,
    *,
    precision_dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """A causal language model on the CPU, in eval mode, with room for the pad token of its tokenizer.

    Args:
        source: as in `resolve`.
        precision_dtype: of the weights. Trained weights should be fp32: RL steps vanish in bf16 rounding.
        tokenizer: from `load_tokenizer`, if it is loaded already.

    Raises:
        ModelError: unknown name, no weights, or not a causal language model.
    """
    place = resolve(source)
    model: PreTrainedModel = _load(
        lambda: AutoModelForCausalLM.from_pretrained(place.name, **_weights(place, precision_dtype)),
        source,
        "causal language model",
    )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{source} is an encoder-decoder", cure="use a decoder, such as Llama, Qwen or GPT-2")
    dequantized(model)
    fit_vocabulary(model, tokenizer or load_tokenizer(source))
    return model.eval()


def load_classifier(
    source: str | Path,
    *,
    labels: int | None = None,
    precision_dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[PreTrainedModel, bool]:
    """A sequence classifier on the CPU, in eval mode, and whether its head is fresh (not in the file).

    Args:
        source: as in `resolve`; a causal language model or an encoder gets a fresh head.
        labels: number of outputs; None takes what the file says.
        precision_dtype: of the weights.
        tokenizer: from `load_tokenizer`, if it is loaded already.

    Raises:
        ModelError: unknown name, no weights, an architecture without a classifier, or another number of labels.
    """
    place = resolve(source)
    options = _weights(place, precision_dtype) | ({} if labels is None else {"num_labels": labels})
    model, report = _load(
        lambda: AutoModelForSequenceClassification.from_pretrained(place.name, output_loading_info=True, **options),
        source,
        "classifier",
    )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{source} is an encoder-decoder", cure="use a decoder or an encoder, such as RoBERTa")
    missing = set(report["missing_keys"])
    base = f"{model.base_model_prefix}."
    lost = sorted(key for key in missing if key.startswith(base) and ".pooler." not in key)
    if lost:
        raise ModelError(f"{source} lacks {len(lost)} weights, the first is {lost[0]}", cure="get the whole model")
    dequantized(model)
    fit_vocabulary(model, tokenizer or load_tokenizer(source))
    return model.eval(), bool(missing)


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Forget that the file was GGUF: the weights are plain tensors by now, and only so can the model be saved."""
    if getattr(getattr(model.config, "quantization_config", None), "quant_method", None) in (None, "gguf"):
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def _weights(place: Source, dtype: torch.dtype) -> dict[str, Any]:
    return {"dtype": dtype} | (place.options or {"use_safetensors": True})


def _load(build: Callable[[], T], source: str | Path, what: str) -> T:
    """Run a ``from_pretrained`` and turn its faults, which the user can mend, into a `ModelError`."""
    try:
        return build()
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"cannot load the {what} of {str(source)!r}: {text[:300]}", where=str(source), cure=_cure(text, str(source))
        ) from error


def _cure(text: str, source: str) -> str:
    if "trust_remote_code" in text or "custom code" in text:
        return "this model needs code from its repository, which Plaudit does not run; use one that transformers knows"
    if "Unrecognized configuration class" in text:
        return "this architecture has no such head in transformers; choose another model"
    if "safetensors" in text and not Path(source).exists():
        return "the weights must be in safetensors format (or GGUF); convert them or choose another revision"
    if "size mismatch" in text or "mismatched" in text:
        return "the file has another number of labels or another vocabulary; use the model as it was saved"
    if Path(source).exists():
        return "check that the directory holds config.json, tokenizer files and *.safetensors, all complete"
    near = _nearest(source, _cached_names())
    return f"check the spelling{near} and the network, or give a local directory"


def _looks_local(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.endswith(".gguf") or source.count("/") > 1


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _cached_names() -> list[str]:
    """Hub names of the models that were downloaded before."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    names = [p.name for p in folder.glob("models--*")] if folder.is_dir() else []
    return [name.removeprefix("models--").replace("--", "/") for name in names]
