"""The page on architectures, from what `check_models.py` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

HEAD = """# Which architectures are right

<!-- Written by `make test-models`. Do not edit. -->

The architectures of transformers {version} that have a causal language model, and some settings of theirs, were built
tiny, with random weights ({tried} of {total} so far). The parts of a run were compared with plain forward passes over
one row (no cache, no padding, no packing): log-probs, what is sampled, gradients, saving and loading, LoRA, critic and
reward model. Rows are longer than sliding windows, and than the original length of LongRoPE and YaRN. The models have
more rows than there are tokens: an id without a token is never drawn.

**{counts}.**

    python scripts/check_models.py llama gpt_neo

- **right**: everything that was compared is equal up to rounding. Sampling is *slow* where no cache can be used: each
  token takes a forward pass over the whole row. A run says so in a note.
- **refused**: a run ends at its start, with this reason and what to use instead.
- **not built**: transformers does not build a tiny text model of it without further packages or parts.
- The reward model is "none" where transformers has no classifier of the architecture, or one that does not score the
  last state; such a model can be policy and critic.
- Whatever this page says, a run compares the log-probs of sampler and trainer on some of its own prompts first.

| architecture | | sampling | reward model | why |
|---|---|---|---|---|
"""


def page(
    found: Mapping[str, Mapping[str, str]], verdicts: Mapping[str, str], version: str, total: int
) -> str:
    """Markdown; ``total``: how many names there are to try."""
    counts = Counter(verdicts.values())
    words = ", ".join(
        f"{counts[word]} {word}" for word in ("right", "refused", "wrong", "not built") if counts[word]
    )
    rows = [_row(name, results, verdicts[name]) for name, results in sorted(found.items())]
    return HEAD.format(version=version, counts=words, tried=len(found), total=total) + "".join(rows)


def _row(name: str, results: Mapping[str, str], verdict: str) -> str:
    note = results.get("note", "")
    sampling = "" if verdict != "right" else "slow" if "without a cache" in note else "cache"
    scored = results.get("reward model", "")
    reward = "" if verdict != "right" else "right" if scored == "right" else "none"
    return f"| {name} | {verdict} | {sampling} | {reward} | {_why(results, verdict)} |\n"


def _why(results: Mapping[str, str], verdict: str) -> str:
    if verdict == "not built":
        return _cell(results["not built"])
    if verdict == "refused":
        first = next(results[name] for name in ("log-probs", "saving") if results[name].startswith("refused"))
        return _cell(first.removeprefix("refused: "))
    wrong = [
        f"{check}: {text.removeprefix('wrong: ')}"
        for check, text in results.items()
        if text.startswith("wrong")
    ]
    if verdict == "right" and wrong:
        return "`generate` differs from the model's own forward pass"
    note = results.get("note", "")
    reasons = ["the model's own logits: more memory"] if "own logits" in note else []
    return _cell("; ".join(wrong + reasons))


def _cell(text: str) -> str:
    return text.replace("|", "/")[:160]
