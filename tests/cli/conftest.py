"""A tiny model, a little data, and one run of each kind, made by the commands themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plaudit.cli.main import main

WORDS = "the a film soup bed room was is very quite good bad warm cold and but we they liked left".split()
SMALL = ["--max-length", "32", "--precision", "fp32", "--no-progress", "--no-tensorboard", "--seed", "3"]


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sentence(i: int, length: int) -> str:
    """Some words, different for each i."""
    return " ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(length))


class World:
    """Paths of a model, data files and finished runs."""

    def __init__(self, root: Path) -> None:
        from plaudit.models.files.saving import save_causal_lm
        from plaudit.models.tiny import tiny_lm, tiny_tokenizer

        self.root, self.model = root, root / "start"
        tokenizer = tiny_tokenizer([" ".join(WORDS)], 64)
        save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), self.model, tokenizer)
        texts = [(sentence(i, 4), sentence(i + 1, 5), sentence(i + 2, 5)) for i in range(24)]
        self.demonstrations = write_lines(
            root / "demos.jsonl", [{"prompt": p, "response": a} for p, a, _ in texts]
        )
        self.preferences = write_lines(
            root / "pairs.jsonl", [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in texts]
        )
        self.sft, self.reward, self.ppo = (root / name for name in ("sft", "reward", "ppo"))

    def commands(self) -> list[list[str]]:
        """The three stages, with the flags of the field's guides."""
        return [
            ["sft", "--model", str(self.model), "--dataset", str(self.demonstrations), "--out", str(self.sft)],
            ["reward", "--model", str(self.sft / "model"), "--dataset", str(self.preferences), "--epochs", "1",
             "--lr", "1e-3", "--batch-size", "8", "--out", str(self.reward)],
            ["ppo", "--policy", str(self.sft / "model"), "--reward", str(self.reward / "model"),
             "--dataset", str(self.preferences), "--kl-coef", "0.1", "--batch-size", "4", "--lr", "1e-4",
             "--iterations", "2", "--critic-warmup", "0", "--max-new-tokens", "6", "--out", str(self.ppo)],
        ]  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    for words in world.commands():
        assert main([*words, *SMALL, "--debug"]) == 0
    return world
