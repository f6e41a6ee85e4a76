"""A model and its files in each format, written and loaded again as another program would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ConfigError, ModelError
from plaudit.export.gguf import BLOCK, TYPES, check, write_gguf
from plaudit.export.nearness import prove_ends
from plaudit.machine import check_space, writing
from plaudit.models.files.integrity import seal
from plaudit.models.files.layout import BASE_FILE, CONFIG_FILE, FOLDER, is_adapter
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.files.source import resolve
from plaudit.models.files.vocabulary import end_ids_of

TARGETS = ("merged", "adapter", *(f"gguf:{kind}" for kind in TYPES))
CARD = "README.md"
AGAIN = "free some space, or choose another --out"
_BYTES = {"merged": 4.0, "gguf:f16": 2.0, "gguf:q8_0": 1.1, "gguf:q4_0": 0.7}
"""Of a weight in each format, rounded up."""


def targets_of(words: list[str]) -> list[str]:
    """The formats that a command line names, each once.

    Raises:
        ConfigError: a format that is not written.

    >>> targets_of(["merged,gguf-q8_0", "merged"])
    ['merged', 'gguf:q8_0']
    """
    named = [part.strip().lower() for word in words for part in word.split(",") if part.strip()]
    plain = ["merged" if n == "safetensors" else n.replace("gguf-", "gguf:", 1) for n in named]
    wrong = [name for name in plain if name not in TARGETS]
    if wrong or not plain:
        raise ConfigError(
            f"no export to {wrong[0] if wrong else 'nothing'}", where="command line, --to",
            cure=f"one or several of {', '.join(TARGETS)}",
        )  # fmt: skip
    return list(dict.fromkeys(plain))


class Exported:
    """A trained model, checked against the formats before its weights are loaded.

    Args:
        source: run, model or adapter directory, hub name, or GGUF file.
        targets: from `targets_of`.

    Raises:
        ModelError: a format cannot hold the model, with the reason.
    """

    def __init__(self, source: str, targets: list[str]) -> None:
        place = resolve(source)
        self.name = Path(source).resolve().name if Path(source).exists() else source.split("/")[-1]
        self.source, self.base = source, place.name
        self.adapter = _adapter_of(source, place.adapter)
        config: Any = AutoConfig.from_pretrained(place.name, **place.options)
        self.is_reward = any("Classification" in kind for kind in config.architectures or ())
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(source)
        if "adapter" in targets and self.adapter is None:
            raise ModelError(
                f"{source} has no LoRA adapter of its own", where="--to adapter",
                cure="export to merged, or train with --rank 8 --save both",
            )  # fmt: skip
        if any(target.startswith("gguf:") for target in targets):
            if self.is_reward:
                raise ModelError(
                    f"{source} is a reward model, whose score has no place in the GGUF of a language model",
                    where="--to gguf:...", cure="export to merged, which transformers and plaudit evaluate load",
                )  # fmt: skip
            check(config.model_type, config, self.tokenizer)
        self.notes: list[str] = []
        self.model: PreTrainedModel | None = None

    def load(self) -> PreTrainedModel:
        """The language model, with its adapter merged."""
        self.model = self.model or load_causal_lm(self.source, tokenizer=self.tokenizer)
        return self.model

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a response; the tokenizer's first."""
        assert self.model is not None, "loaded"
        first = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(i for i in (first, *end_ids_of(self.model)) if i is not None))

    def write(self, target: str, out: Path) -> Path:
        """Write one format below ``out``; returns its file or directory.

        Raises:
            MachineError: no space, no permission.
        """
        path = out / (target if ":" not in target else f"{self.name}-{target.partition(':')[2]}.gguf")
        out.mkdir(parents=True, exist_ok=True)
        if self.is_reward or target == "adapter":
            with writing(path, target, cure=AGAIN):
                self._copy(target, path)
            return path
        model = self.load()
        needed = int(sum(p.numel() for p in model.parameters()) * _BYTES[target])
        check_space(path, target, needed, AGAIN)
        with writing(path, target, needed=needed, cure=AGAIN):
            if target == "merged":
                save_causal_lm(model, path, self.tokenizer, "merged")
            else:
                kind = target.partition(":")[2]
                fallen = write_gguf(model, self.tokenizer, path, kind, ends=self.ends, name=self.name)
                self.notes += [
                    f"{target}: {len(names)} matrices are {other}: rows are no multiple of {BLOCK}: {names[0]} ..."
                    for other, names in fallen.items()
                ]
        return path

    def reload(self, target: str, path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """An exported language model and its tokenizer, from the files alone; its ends are proven.

        Raises:
            ModelError: it cannot be loaded, or does not stop.
        """
        # A GGUF has no place for what transformers asks of some architectures (a GPT-2's positions, a Qwen3's width of
        # heads), so its config comes from the model; weights and tokenizer come from the file.
        model = self.load()
        options: dict[str, Any] = {"config": model.config} if target.startswith("gguf:") else {}
        # The tokenizer of the model, so that no row is added for a token that only transformers' own class has; whether
        # both cut texts alike is measured.
        again = load_causal_lm(path, tokenizer=self.tokenizer, **options)
        if target == "merged":
            prove_ends(again, self.ends)
        return again, load_tokenizer(path)

    def unpack(self, target: str, path: Path, place: Path) -> None:
        """Write the weights that an exported language model loads with as a directory, with the tokenizer it came from.

        From a GGUF file transformers makes a tokenizer with a token more, and for some architectures a wrong config: a
        model that is sampled again by the run's own commands has neither.
        """
        save_causal_lm(self.reload(target, path)[0], place, self.tokenizer)

    def _copy(self, target: str, path: Path) -> None:
        place = resolve(self.source)
        origin = self.adapter if target == "adapter" else Path(place.name)
        assert origin is not None, "checked"
        if path.exists():
            shutil.rmtree(path)
        shutil.copytree(origin, path, ignore=None if target == "adapter" else shutil.ignore_patterns(FOLDER))
        if target == "adapter":
            self.tokenizer.save_pretrained(path)
        seal(path)

    def describe(self, out: Path, text: str) -> None:
        """Write the model card beside the files, and into the safetensors directory, where model hubs look for it."""
        (out / CARD).write_text(text, encoding="utf-8")
        for name in ("merged", "adapter"):
            if (out / name).is_dir():
                (out / name / CARD).write_text(text, encoding="utf-8")
                seal(out / name)


def _adapter_of(source: str, found: Path | None) -> Path | None:
    if found is not None:
        return found
    for place in (Path(source) / "model" / FOLDER, Path(source) / FOLDER, Path(source)):
        if is_adapter(place) and (place / CONFIG_FILE).is_file() and (place / BASE_FILE).is_file():
            return place
    return None
