"""llama.cpp itself, by the package llama-cpp-python: its quantiser of K-types, and a GGUF file as it computes it."""

from __future__ import annotations

import ctypes
import logging
from importlib.util import find_spec
from pathlib import Path

import gguf
import torch

from plaudit.errors import ModelError
from plaudit.export.nearness import LONGEST, Side

KINDS = {"q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}
"""K-types -> llama.cpp's number of a file that is mostly of it."""
BLOCK = 256
"""Weights of a block of a K-type; a row is a whole number of blocks."""
INSTALL = "pip install 'plaudit[llamacpp]', which compiles llama.cpp"


def is_here() -> bool:
    """Whether llama-cpp-python is installed."""
    return find_spec("llama_cpp") is not None


def check_quantiser() -> None:
    """Make sure that llama.cpp's quantiser is there.

    Raises:
        ModelError: it is not.
    """
    if not is_here():
        raise ModelError(
            "K-types are quantised by llama.cpp, of which the package llama-cpp-python is not installed",
            where="--to gguf:...", cure=f"{INSTALL}; or export to gguf:q8_0 or gguf:q4_0",
        )  # fmt: skip


def quantise(source: Path, path: Path, kind: str) -> dict[str, list[str]]:
    """Write a GGUF file of a K-type.

    Args:
        source: a GGUF file in F16.
        path: of the file that is written.
        kind: of `KINDS`.

    Returns:
        Type -> names of the matrices that llama.cpp keeps in it, because their rows are no whole number of blocks.

    Raises:
        ModelError: llama.cpp cannot read or quantise it.
    """
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # else lines about each tensor
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = KINDS[kind], torch.get_num_threads()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(options)):
        raise ModelError(
            f"llama.cpp cannot quantise {source.name} to {kind}", where="--to",
            cure="export to gguf:q8_0 or gguf:q4_0, and report it",
        )  # fmt: skip
    fallen: dict[str, list[str]] = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        if len(tensor.shape) > 1 and int(tensor.shape[0]) % BLOCK and not tensor.name.startswith("position_embd"):
            fallen.setdefault(tensor.tensor_type.name, []).append(tensor.name)
    return fallen


def side_of(path: Path) -> Side:
    """A GGUF file as llama.cpp cuts texts and computes logits, on the CPU.

    Raises:
        ModelError: llama.cpp cannot load it.
    """
    import llama_cpp

    try:
        model = llama_cpp.Llama(
            str(path), n_ctx=LONGEST, n_batch=LONGEST, n_gpu_layers=0, logits_all=True, verbose=False,
            n_threads=torch.get_num_threads(), n_threads_batch=torch.get_num_threads(),
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"llama.cpp cannot load {path.name}: {error}", where=str(path),
            cure="update llama-cpp-python; if it is new, report it",
        ) from error  # fmt: skip

    def logits(ids: list[int]) -> torch.Tensor:
        model.reset()
        model.eval(ids)
        return torch.tensor(model.scores[: len(ids)])

    return Side(cut=lambda text: list(model.tokenize(text.encode(), add_bos=True, special=True)), logits=logits)
