"""The model card: what a model is, from what it was trained, how good it is, and how to run it in each program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.export.integers import KINDS
from plaudit.export.nearness import FIGURES, SCORES
from plaudit.statistics.intervals import Estimate

KEPT = {
    "gold_kept": "gain in gold reward over the start, as a share of the trained model's",
    "reward_kept": "the same of the reward",
    "win_rate": "share of its responses that score higher than the trained model's to the same prompt; 0.5: alike",
}
UNLICENSED = "Not stated by what it was made from: look it up before you pass the model on"
RESULTS = ("reward_mean", "kl", "perplexity_ratio", "win_rate", "gold_start", "gold_model", "accuracy", "ece")
"""Figures of a run that the card shows, each with its interval where the run has one."""


def card(
    name: str, run: Mapping[str, Any], files: Mapping[str, str], figures: Mapping[str, Mapping[str, Estimate]],
    notes: Sequence[str],
) -> str:  # fmt: skip
    """Markdown with the front matter that model hubs read.

    Args:
        name: of the model.
        run: ``command``, ``inputs`` (name -> hash), ``summary``, ``bases`` (the nearest first), ``hub`` (name of the
            last there), ``licence`` of the last; what is missing is said to be.
        files: format -> file or directory, relative to the card.
        figures: format -> name -> figure.
        notes: what is to be known of the formats.
    """
    licence = run.get("licence") or "unknown"
    hub = f"base_model: {run['hub']}\n" if run.get("hub") else ""
    head = f"---\nlicense: {licence}\n{hub}library_name: transformers\ntags: [rlhf, plaudit]\n---\n\n# {name}\n\n"
    method = run.get("command") or "not known: exported from a model directory and not from a run"
    parts = [head, f"## Method\n\nTrained with `plaudit {method}`" if run.get("command") else f"## Method\n\n{method}"]
    chain = ", ".join(f"from `{base}`" for base in run.get("bases", ()))
    parts.append(f", {chain}.\n\n" if chain else ".\n\n")
    inputs = [f"| {key} | `{digest}` |\n" for key, digest in run.get("inputs", {}).items()]
    if inputs:
        parts.append("## Data and models it was made from\n\n| input | hash |\n|---|---|\n" + "".join(inputs) + "\n")
    parts += ["## Figures\n\n", _results(run.get("summary", {})), _nearness(figures)]
    parts += [f"- {note}\n" for note in notes]
    terms = f"{licence}, as what it was made from: see there" if run.get("licence") else UNLICENSED
    parts.append(
        "\n## Limits\n\nThe figures hold for prompts like those of the run. A reward model's approval is not truth: "
        "the model can be wrong, and can be unsafe on prompts of other kinds. Measure it on your own before you rely "
        f"on it.\n\n## Licence\n\n{terms}.\n\n"
    )
    return "".join(parts) + "## How to run it\n\n" + "".join(_commands(files))


def _results(summary: Mapping[str, Any]) -> str:
    rows = []
    for key in RESULTS:
        if isinstance(summary.get(key), (int, float)):
            ends: Sequence[float] = summary.get(f"{key}_ci") or []
            interval = f"{ends[0]:.4g} to {ends[1]:.4g}" if len(ends) == 2 and None not in ends else "none"
            rows.append(f"| {key} | {summary[key]:.4g} | {interval} |\n")
    if not rows:
        return "The run has no figures of its own.\n\n"
    return "| figure | value | 95 % interval |\n|---|---|---|\n" + "".join(rows) + "\n"


def _nearness(figures: Mapping[str, Mapping[str, Estimate]]) -> str:
    about = FIGURES | SCORES | KEPT
    text = "How near each exported format is to the trained model, loaded again from its file:\n\n"
    text += "| format | figure | value | 95 % interval | what it is |\n|---|---|---|---|---|\n"
    for form, values in figures.items():
        for key, value in values.items():
            ends = "none" if math.isnan(value.low) else f"{value.low:.4g} to {value.high:.4g}"
            text += f"| {form} | {key} | {value.value:.4g} | {ends} | {about[key]} |\n"
    return text + "\n"


def _commands(files: Mapping[str, str]) -> list[str]:
    parts = []
    for form, file in files.items():
        if form == "merged":
            parts.append(
                "transformers:\n\n```python\nfrom transformers import pipeline\n\n"
                f'print(pipeline("text-generation", "{file}")("..."))\n```\n\nvLLM:\n\n```\nvllm serve {file}\n```\n\n'
            )
        elif form in KINDS:
            parts.append(
                "transformers, with torchao (`pip install torchao`):\n\n```python\n"
                "from transformers import pipeline\n\n"
                f'print(pipeline("text-generation", "{file}")("..."))\n```\n\n'
            )
        elif form == "adapter":
            line = f"vllm serve BASE --enable-lora --lora-modules tuned={file}"
            parts.append(f"vLLM, on its base:\n\n```\n{line}\n```\n\n")
        else:
            parts.append(
                f"llama.cpp:\n\n```\nllama-cli -m {file}\n```\n\nOllama:\n\n```\necho 'FROM ./{file}' > Modelfile\n"
                "ollama create tuned -f Modelfile && ollama run tuned\n```\n\n"
            )
    return parts


def as_values(figures: Mapping[str, Mapping[str, Estimate]], notes: Sequence[str]) -> dict[str, Any]:
    """The same figures for programs."""
    values = {
        form: {
            key: {"value": v.value, "ci": None if math.isnan(v.low) else [v.low, v.high], "n": v.n}
            for key, v in of.items()
        }
        for form, of in figures.items()
    }
    return {"figures": values, "notes": list(notes)}
