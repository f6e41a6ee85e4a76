"""A tiny model behind the server as it is served, on a port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import Letters, Served, free_port, serving

from plaudit import backends
from plaudit.data.served import Store
from plaudit.serving.host import Host
from plaudit.serving.settings import ServingSettings

TEXT = "the a film soup bed room was is very quite good bad warm cold and but we they liked left"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of bytes and byte pairs, which has a chat template."""
    from plaudit.models.files.saving import save_causal_lm
    from plaudit.models.tiny import tiny_lm, tiny_tokenizer

    path = tmp_path_factory.mktemp("served") / "model"
    tokenizer = tiny_tokenizer([TEXT], 300, kind="bpe")
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.3), path, tokenizer)
    return path


@pytest.fixture(scope="session")
def engine(model: Path) -> Iterator[Any]:
    """The engine and the chat format, shared by the tests that do not end it."""
    engine, chat = backends.open_engine(str(model), rows=4, queue=40)
    yield engine, chat
    engine.close()


@pytest.fixture(scope="session")
def served(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a reward model and a store of feedback."""
    store = Store(tmp_path_factory.mktemp("feedback") / "feedback.jsonl")
    settings = ServingSettings("tiny", "letters", port=free_port(), max_tokens=200)
    with serving(Host(settings, *engine, Letters(), feedback=store)) as running:
        yield running
