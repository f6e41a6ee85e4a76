"""Models and tokenizers by hub name, directory, or GGUF file. Safetensors only; no remote code is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as logs

from plaudit.errors import ModelError
from plaudit.machine import reach_cure
from plaudit.models.files.integrity import refuse_non_finite
from plaudit.models.files.layout import merge_into
from plaudit.models.files.outline import config_of, outline, outlining
from plaudit.models.files.source import Source, resolve
from plaudit.models.files.vocabulary import Words, ensure_pad, fit_vocabulary
from plaudit.models.forward.trunk import is_4bit

T = TypeVar("T")


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model, with a pad token of its own (one that is not the end token).

    Raises:
        ModelError: there is none, or the hub cannot be reached.
    """
    place = resolve(source)
    if place.adapter and (place.adapter / "tokenizer_config.json").is_file():
        place = Source(str(place.adapter))
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
    **options: Any,
) -> PreTrainedModel:
    """A causal language model on the CPU, in eval mode, with an embedding row for every token of its tokenizer.

    Args:
        source: as in `resolve`.
        precision_dtype: of the weights. Trained weights should be fp32: most steps of RL are smaller than the rounding
            of bf16 (2^-9 of a weight) and would be lost.
        tokenizer: from `load_tokenizer`, if it is loaded already.
        options: further arguments of ``from_pretrained``, such as `quantization_options`.

    Raises:
        ModelError: unknown name, no weights, or not a causal language model.
    """
    model, missing = _load_weights(AutoModelForCausalLM, source, {"dtype": precision_dtype} | options)
    _refuse_classifier(model, source)
    # The text part of a model for images and text has a config of its own, by which nothing could be loaded again.
    if model.config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{source} is a {model.config.model_type}, the text part of a larger model, and could not be loaded again"
            " once it is saved",
            cure="use a model for text alone, such as Llama, Qwen, Mistral or Gemma",
        )
    # transformers fills missing weights with random numbers and only logs it: a classifier loaded as language model
    # would write noise.
    if missing:
        raise ModelError(
            f"{source} lacks {len(missing)} weights of a language model, the first is {missing[0]}",
            cure="give a causal language model; a reward model or classifier cannot write text",
        )
    fit_vocabulary(model, tokenizer or load_tokenizer(source))
    return _as_named(model, resolve(source))


def _as_named(model: Any, place: Source) -> PreTrainedModel:
    """The model with its adapter merged, if it has one, and under the name by which an adapter on it names its base."""
    adapter = place.adapter
    if adapter is not None and outlining() is None:
        if is_4bit(model):
            raise ModelError(
                f"{adapter} is an adapter, which cannot be merged into a base in 4 bit",
                where="[lora] quantize", cure=f"plaudit export {adapter} --to merged, and start from that",
            )  # fmt: skip
        model = merge_into(model, adapter)
        if (adapter / "generation_config.json").is_file() and model.can_generate():
            model.generation_config = GenerationConfig.from_pretrained(str(adapter))
    origin = adapter or (Path(place.name) / place.gguf if place.gguf else Path(place.name))
    model.name_or_path = str(origin.absolute()) if origin.exists() else place.name
    loaded: PreTrainedModel = model
    return loaded


def load_classifier(
    source: str | Path,
    *,
    labels: int | None = None,
    precision_dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: Any,
) -> tuple[PreTrainedModel, bool]:
    """A sequence classifier on the CPU, in eval mode, and whether its head is fresh (not in the file).

    Args:
        source: as in `resolve`; a causal language model or an encoder gets a fresh head.
        labels: number of outputs; None takes what the file says.
        precision_dtype: of the weights.
        tokenizer: from `load_tokenizer`, if it is loaded already.
        options: further arguments of ``from_pretrained``, such as `quantization_options`.

    Raises:
        ModelError: unknown name, no weights, no classifier of this architecture, other number of labels.
    """
    options |= {"dtype": precision_dtype} | ({} if labels is None else {"num_labels": labels})
    model, missing = _load_weights(AutoModelForSequenceClassification, source, options)
    # Missing in the head means a fresh head, and a pooler is new in a masked language model; missing in the body
    # means a file that is not complete.
    lost = [key for key in missing if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if lost:
        raise ModelError(
            f"{source} lacks {len(lost)} weights, the first is {lost[0]}", cure="get the whole model"
        )
    fit_vocabulary(model, tokenizer or load_tokenizer(source))
    return _as_named(model, resolve(source)), bool(missing)


def _refuse_classifier(model: PreTrainedModel, source: str | Path) -> None:
    """Raise if the files are those of a classifier: with tied embeddings it loads as a language model without a word.

    Its body was trained to score texts, so what it would write is noise.
    """
    config: Any = model.config
    kinds = [name for name in getattr(config, "architectures", None) or () if "Classification" in name]
    if hasattr(config, "plaudit_reward_mean"):
        raise ModelError(
            f"{source} is a reward model, which scores texts and cannot write them",
            cure="give it as --reward; as policy or model give the language model that it was trained from",
        )
    if kinds:
        raise ModelError(
            f"{source} is a classifier ({kinds[0]}), which labels texts and cannot write them",
            cure="give it as --reward; as policy or model give a causal language model",
        )


def dequantized(model: Any) -> Any:
    """The same model without the marks of a GGUF file. Its weights are plain tensors already."""
    # transformers refuses to save a model that it takes for quantised, and a config that says so would make the saved
    # plain weights unreadable.
    if not is_4bit(model):
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def _load_weights(
    auto: Any, source: str | Path, options: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """The model in eval mode, and the names of weights that the file did not have."""
    place = resolve(source)
    if place.gguf and "quantization_config" in options:
        raise ModelError(
            "a GGUF file cannot be loaded in 4 bit", where="[lora] quantize", cure="quantize = 'none'"
        )
    if outlining() is not None:
        rows = Words.known_to(load_tokenizer(source)).count
        model, missing = _load(lambda: outline(auto, place, rows, options), source, "model")
        return model.eval(), missing
    options = (place.options or {"use_safetensors": True}) | options
    model, report = _load(lambda: _from_pretrained(auto, place, options), source, "model")
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{source} is an encoder-decoder", cure="use a decoder, such as Llama, Qwen or GPT-2"
        )
    dequantized(model)
    refuse_non_finite(model.named_parameters(), source)
    return model.eval(), sorted(report["missing_keys"])


def _from_pretrained(auto: Any, place: Source, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Model and report; of a directory in int8 or int4 by torchao the plain weights that its numbers stand for."""
    config = None if place.gguf else config_of(place)
    section: Any = getattr(config, "quantization_config", None) or {}
    if section.get("quant_method") != "torchao":
        model, report = auto.from_pretrained(place.name, output_loading_info=True, **options)
        return model, report
    if "quantization_config" in options:
        raise ValueError("it is quantised by torchao already, and cannot be loaded in 4 bit")
    # torchao computes in the type of the file and in no other; what trains or samples here asks for plain tensors.
    model, report = auto.from_pretrained(
        place.name, output_loading_info=True, **(options | {"dtype": "auto"})
    )
    return _plain(model, options["dtype"]), report


@torch.no_grad()
def _plain(model: Any, dtype: torch.dtype) -> Any:
    from torchao.utils import TorchAOBaseTensor

    for module in model.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            if isinstance(tensor, TorchAOBaseTensor):
                setattr(module, name, nn.Parameter(tensor.dequantize()))
    # By these `save_pretrained` would undo what the loader made of the file's tensors, which plain ones are not.
    model._weight_conversions = None
    model.config.dtype = dtype
    return model.to(dtype)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it transformers shows no progress bars and no load reports."""
    # What matters in a load report (missing weights, another number of labels) is checked here and raised.
    level, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    reader: Any = modeling_gguf_pytorch_utils
    own = reader.tqdm
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    # The bar over the tensors of a GGUF file is tqdm's own and heeds none of these.
    reader.tqdm = lambda tensors, **options: tensors
    try:
        yield
    finally:
        reader.tqdm = own
        logs.set_verbosity(level)
        if bar:
            logs.enable_progress_bar()


def _load(build: Callable[[], T], source: str | Path, what: str) -> T:
    """Call a ``from_pretrained`` and turn the errors that a user can cause into a `ModelError`."""
    try:
        with quiet():
            return build()
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"cannot load the {what} of {str(source)!r}: {text[:300]}",
            where=str(source),
            cure=_cure(text, str(source)),
        ) from error


def _cure(text: str, source: str) -> str:
    # These libraries have no error classes for the cases, so texts are compared. A text that changes costs the better
    # advice, not the error.
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "the model needs code from its repository, which is not run; use an architecture of transformers"
        )
    if "torchao" in text and find_spec("torchao") is None:
        return "its weights are in int8 or int4: pip install 'plaudit[torchao]'"
    if "Unrecognized configuration class" in text:
        return "this architecture has no such head in transformers; choose another model"
    if "safetensors" in text and not Path(source).exists():
        return "the weights must be in safetensors format (or GGUF); convert them or choose another revision"
    if "size mismatch" in text or "mismatched" in text:
        return "the file has another number of labels or another vocabulary; use the model as it was saved"
    if Path(source).exists():
        return "check that the directory holds config.json, tokenizer files and *.safetensors, all complete"
    return f"{reach_cure()}; check that the download is complete, or give a local directory"
