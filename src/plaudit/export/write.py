"""A model and its files in each format, written and loaded again as another program would."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plaudit.errors import ConfigError, ModelError
from plaudit.export import integers, llamacpp
from plaudit.export.gguf import BLOCK, TYPES, check, write_gguf
from plaudit.export.nearness import Side, prove_ends
from plaudit.export.origin import Origin
from plaudit.machine import check_space, writing
from plaudit.models.files.integrity import seal
from plaudit.models.files.layout import BASE_FILE, CONFIG_FILE, FOLDER, is_adapter
from plaudit.models.files.load import load_causal_lm, load_classifier, load_tokenizer
from plaudit.models.files.saving import save_causal_lm, write
from plaudit.models.files.source import resolve
from plaudit.models.files.vocabulary import end_ids_of

TARGETS = ("merged", "adapter", *(f"gguf:{kind}" for kind in (*TYPES, *llamacpp.KINDS)), *integers.KINDS)
CARD = "README.md"
AGAIN = "free some space, or choose another --out"
_BYTES = {
    "merged": 4.0, "gguf:f16": 2.0, "gguf:q8_0": 1.1, "gguf:q4_0": 0.7, "int8": 6.0, "int4": 6.0,
    **{f"gguf:{kind}": 3.1 for kind in llamacpp.KINDS},
}  # fmt: skip
"""Of a weight in each format, rounded up; with what is written on the way and removed again."""


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
        self.source = source
        self.adapter = _adapter_of(source, place.adapter)
        config: Any = AutoConfig.from_pretrained(place.name, **place.options)
        self.is_reward = any("Classification" in kind for kind in config.architectures or ())
        self.auto: Any = AutoModelForSequenceClassification if self.is_reward else AutoModelForCausalLM
        self.origin = Origin.of(source)
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
        if any(target.partition(":")[2] in llamacpp.KINDS for target in targets):
            llamacpp.check_quantiser()
        if any(target in integers.KINDS for target in targets):
            integers.check_integers(self.auto, config)
        self.notes: list[str] = []
        self.model: PreTrainedModel | None = None

    def load(self) -> PreTrainedModel:
        """The model, with its adapter merged."""
        if self.model is None and self.is_reward:
            self.model = load_classifier(self.source, tokenizer=self.tokenizer)[0]
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
        if target == "adapter" or (self.is_reward and target == "merged"):
            with writing(path, target, cure=AGAIN):
                self._copy(target, path)
            return path
        model = self.load()
        needed = int(sum(p.numel() for p in model.parameters()) * _BYTES[target])
        check_space(path, target, needed, AGAIN)
        with writing(path, target, needed=needed, cure=AGAIN), TemporaryDirectory(dir=out) as place:
            if target == "merged":
                save_causal_lm(model, path, self.tokenizer, "merged")
            elif target in integers.KINDS:
                self._integers(model, target, Path(place), path)
            else:
                self._gguf(model, target, Path(place), path)
        return path

    def _integers(self, model: PreTrainedModel, kind: str, place: Path, path: Path) -> None:
        if self.is_reward:
            write(model, place, self.tokenizer)
        else:
            save_causal_lm(model, place, self.tokenizer, "merged")
        if path.exists():
            shutil.rmtree(path)
        left = integers.write_integers(self.auto, place, path, kind)
        self.tokenizer.save_pretrained(path)
        seal(path)
        self._note_fallen(kind, {"bf16": left}, integers.GROUP)

    def _gguf(self, model: PreTrainedModel, target: str, place: Path, path: Path) -> None:
        kind = target.partition(":")[2]
        known = kind in TYPES
        first = path if known else place / "f16.gguf"
        fallen = write_gguf(
            model, self.tokenizer, first, kind if known else "f16", ends=self.ends, name=self.name, origin=self.origin
        )
        if not known:
            fallen = llamacpp.quantise(first, path, kind)
        self._note_fallen(target, fallen, BLOCK if known else llamacpp.BLOCK)

    def _note_fallen(self, target: str, fallen: dict[str, list[str]], block: int) -> None:
        self.notes += [
            f"{target}: {len(names)} matrices are {other}: rows are no multiple of {block}: {names[0]} ..."
            for other, names in fallen.items()
            if names
        ]

    def read(self, target: str, path: Path) -> Side:
        """An exported language model as the program computes it that it was written for; its ends are proven.

        Without llama-cpp-python transformers computes with the weights of a GGUF file, and a note says so.

        Raises:
            ModelError: it cannot be loaded, or does not stop.
        """
        if target.startswith("gguf:"):
            if llamacpp.is_here():
                self.notes.append(f"{target}: measured in llama.cpp")
                return llamacpp.side_of(path)
            self.notes.append(
                f"{target}: measured in transformers with the weights of the file; in llama.cpp itself after"
                f" {llamacpp.INSTALL}"
            )
        if target in integers.KINDS:
            again = integers.read_integers(self.auto, path)
            prove_ends(again, self.ends)
            return Side.of(again, load_tokenizer(path))
        return Side.of(*self.reload(target, path))

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
