"""Every architecture of transformers that has a causal language model, tiny: does a run do right with it?

python scripts/check_models.py                 all of them; writes docs/models.md and docs/models.json (half an hour)
python scripts/check_models.py llama gpt_neo   some of them, on the console; with --save into the page as well

Each check compares what Plaudit computes with plain forward passes over one row: no cache, no padding, no packing. The
exit code is 1 if anything is wrong; a refusal with a reason is not.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from model_page import page
from tiny_families import FAMILIES, VARIANTS, VOCABULARY, tiny
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import __version__ as transformers_version
from transformers.utils import logging as logs

from plaudit.config.sections import LoraSection, SamplingSection
from plaudit.errors import PlauditError
from plaudit.experience import Experience
from plaudit.generation.native import NativeGenerator
from plaudit.models.critic import Critic
from plaudit.models.files.load import load_causal_lm
from plaudit.models.files.vocabulary import Words
from plaudit.models.forward.trunk import body
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt

DOCS = Path(__file__).parents[1] / "docs"
NEW, PROMPT = 14, 3
"""Tokens that are sampled, and those of a row that count as its prompt."""
CLOSE = 1e-3
"""Difference of log-probs, scores and values, relative above 1; gradients may differ by as much."""


TEMPORARY = re.compile(r"'[^' ]*tmp[^' ]*'")
"""A folder of this run, in errors."""


class Wrong(Exception):
    """What Plaudit computes differs from what the model's own forward pass gives."""


@cache
def tokenizer() -> Any:
    """Of fewer tokens than the models have rows."""
    return tiny_tokenizer([" ".join(f"w{i}" for i in range(90))], VOCABULARY - 4, chat=False)


def random_rows(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Ids of words, without special tokens."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(5, len(tokenizer()), (n,), generator=draw).tolist() for n in lengths]


@cache
def texts() -> list[list[int]]:
    """Rows of different length, some of which begin alike; the longest is beyond windows and original lengths."""
    long, middle, short = random_rows((30, 17, 6), seed=1)
    return [long, long[:9] + middle, long[:9] + short, middle]


def padded(prompt: int = PROMPT) -> Experience:
    """`texts` as a batch padded on the right."""
    rows = texts()
    width = max(map(len, rows)) + 2
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    columns = torch.arange(width)
    tokens = torch.stack([torch.tensor(row + [0] * (width - len(row))) for row in rows])
    attention = columns < lengths
    return Experience(tokens, attention, attention & (columns >= prompt))


def plain(lm: Any, row: Sequence[int]) -> Tensor:
    """Log-probs ``[T, V]`` of every next token, among those that the tokenizer knows."""
    logits = lm(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()
    return logits[:, : len(tokenizer())].log_softmax(-1)


def truth(lm: Any, row: Sequence[int], start: int) -> Tensor:
    """Log-probs of row[start:], each as a forward pass over the tokens before it gives it."""
    whole, half = plain(lm, row[:-1]), len(row) // 2
    # One pass over the row gives the same, unless states depend on the length of the row (LongRoPE).
    if not torch.allclose(plain(lm, row[:half])[-1], whole[half - 1], atol=1e-4):
        whole = torch.stack([plain(lm, row[:t])[-1] for t in range(1, len(row))])
    return whole[start - 1 :].gather(1, torch.tensor(row[start:])[:, None])[:, 0]


def compare(what: str, found: Tensor, wanted: Tensor, tolerance: float = CLOSE) -> None:
    """Raise `Wrong` if they differ."""
    difference = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    if not difference <= tolerance:
        raise Wrong(f"{what} differ by {difference:.1e}")


def policy_of(lm: Any) -> Policy:
    return Policy(lm, words=Words.known_to(tokenizer()))


@torch.no_grad()
def check_sampler(lm: Any) -> None:
    """Log-probs are those of forward passes over the tokens before, and greedy tokens those of `generate`."""
    prompts = [
        TokenPrompt(Prompt(str(i), ""), tuple(row))
        for i, row in enumerate(random_rows((PROMPT, 12, 1), seed=0))
    ]
    section = SamplingSection(max_new_tokens=NEW, top_k=1)
    drawn = NativeGenerator(lm, tokenizer(), (), rows=2).generate(prompts, 1, section, seed=0, iteration=0)
    # The tiny models of translators force a last token; a run does not.
    lm.generation_config.forced_eos_token_id = lm.generation_config.forced_bos_token_id = None
    for rollout in drawn:
        row, start = [*rollout.prompt_ids, *rollout.response_ids], len(rollout.prompt_ids)
        compare("log-probs of samples", torch.tensor(rollout.logprobs), truth(lm, row, start))
        best = torch.stack([plain(lm, row[:t])[-1].max() for t in range(start, len(row))])
        compare("greedy tokens and the likeliest", torch.tensor(rollout.logprobs), best)


@torch.no_grad()
def check_generate(lm: Any) -> None:
    """Greedy tokens are those of `generate`, row by row without padding."""
    lm.generation_config.forced_eos_token_id = lm.generation_config.forced_bos_token_id = None
    unknown = list(range(len(tokenizer()), VOCABULARY))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}
    prompts = random_rows((PROMPT, 12, 1), seed=0)
    section = SamplingSection(max_new_tokens=NEW, top_k=1)
    ours = NativeGenerator(lm, tokenizer(), (), rows=2).generate(
        [TokenPrompt(Prompt(str(i), ""), tuple(row)) for i, row in enumerate(prompts)],
        1,
        section,
        seed=0,
        iteration=0,
    )
    for row, rollout in zip(prompts, ours, strict=True):
        theirs = lm.generate(torch.tensor([row]), do_sample=False, suppress_tokens=unknown, **options)[
            0
        ].tolist()
        if theirs[len(row) :] != list(rollout.response_ids):
            raise Wrong(
                f"after {len(row)} tokens generate goes on with other tokens than its own forward pass"
            )


def check_logprobs(lm: Any) -> None:
    """Of a padded batch, as of each row alone."""
    with torch.no_grad():
        for found, row in zip(policy_of(lm)(padded()).logprobs, texts(), strict=True):
            compare("log-probs", found[PROMPT : len(row)], truth(lm, row, PROMPT))


def check_gradients(lm: Any) -> None:
    """Of a weighted sum of the log-probs of a padded batch, as of each row alone."""
    trained = [p for p in lm.parameters() if p.requires_grad]
    found = policy_of(lm)(padded()).logprobs
    weights = torch.linspace(0.01, 0.03, found.shape[1])
    ours = gradient((found * weights).sum(), trained)
    theirs = gradient(
        sum((truth(lm, row, PROMPT) * weights[PROMPT : len(row)]).sum() for row in texts()), trained
    )
    known = theirs.isfinite()  # of some random models the forward pass itself gives gradients that are not
    difference = float((ours - theirs)[known].norm() / theirs[known].norm())
    if not difference <= CLOSE:
        raise Wrong(f"gradients differ by {difference:.1e}")


def gradient(value: Any, parameters: Sequence[Tensor]) -> Tensor:
    """Flat; 0 where a parameter takes no part."""
    parts = torch.autograd.grad(value, parameters, allow_unused=True)
    pairs = zip(parts, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


@torch.no_grad()
def check_saving(lm: Any) -> None:
    """A saved policy gives the same log-probs to the last bit, and plain transformers loads it."""
    policy = policy_of(lm)
    with TemporaryDirectory() as folder:
        policy.save(folder, tokenizer())
        again, others = load_causal_lm(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    compare("log-probs after loading", policy_of(again)(padded()).logprobs, policy(padded()).logprobs, 0.0)
    compare("those of transformers", plain(others, texts()[0]), plain(lm, texts()[0]))


def check_lora(lm: Any) -> None:
    """Adapters that have learned something: log-probs, gradients, and the merged model."""
    before = plain(lm, texts()[0]).detach()
    adapted = add_lora(lm, LoraSection(rank=2), task="causal")
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
        if torch.allclose(plain(adapted, texts()[0]), before, atol=1e-3):
            raise Wrong("adapters change nothing")
    check_logprobs(adapted)
    check_gradients(adapted)
    with TemporaryDirectory() as folder, torch.no_grad():
        policy_of(adapted).save(folder, tokenizer())
        compare(
            "merged adapters",
            plain(load_causal_lm(folder), texts()[0]),
            plain(adapted, texts()[0]),
            CLOSE,
        )


def check_reward_model(lm: Any) -> None:
    """Scores of a padded batch are those of the classifier on each row; also after saving."""
    with TemporaryDirectory() as folder:
        policy_of(lm).save(folder, tokenizer())
        model = RewardModel.start(folder, tokenizer())
    found = model(padded()).scores
    found.sum().backward()
    with torch.no_grad(), TemporaryDirectory() as folder:
        wanted = [model.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, 0] for row in texts()]
        compare("scores", found, torch.stack(wanted))
        model.probe = texts()[:2]
        model.save(folder, tokenizer())
        compare("scores after loading", RewardModel.load(folder, tokenizer())(padded()).scores, found, 1e-6)


def check_critic(lm: Any) -> None:
    """Values are the head on the states of each row alone."""
    critic = Critic.from_policy(lm)
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(5))
        for found, row in zip(critic(padded()).values, texts(), strict=True):
            states = [
                body(lm)(input_ids=torch.tensor([row[:t]]), use_cache=False)[0][0, -1]
                for t in range(PROMPT, len(row))
            ]
            compare("values", found[PROMPT : len(row)], critic.head(torch.stack(states).float())[:, 0])
    critic(padded()).values.sum().backward()


CHECKS: dict[str, Callable[[Any], None]] = {
    "log-probs": check_logprobs,
    "sampler": check_sampler,
    "generate": check_generate,
    "gradients": check_gradients,
    "saving": check_saving,
    "LoRA": check_lora,
    "critic": check_critic,
    "reward model": check_reward_model,
}


def checked(name: str) -> dict[str, str]:
    """What came of each check: "right", "refused: ..." or "wrong: ..."; or why the model cannot be built."""
    try:
        lm = tiny(name)
        with torch.no_grad():
            plain(lm, texts()[0])
    except Exception as error:
        return {"not built": " ".join(f"{type(error).__name__}: {error}".split())[:160]}
    results: dict[str, str] = {}
    for check, function in CHECKS.items():
        try:
            function(tiny(name))
            results[check] = "right"
        except PlauditError as error:
            results[check] = f"refused: {TEMPORARY.sub('the saved model', error.what)[:200]}"
        except Exception as error:
            what = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
            results[check] = f"wrong: {' '.join(what.split())[:160]}"
    with _quiet():
        notes = _notes(name)
    return results | ({"note": "; ".join(notes)} if notes else {})


def _notes(name: str) -> tuple[str, ...]:
    try:
        return (*policy_of(tiny(name)).notes, *NativeGenerator(tiny(name), tokenizer(), ()).notes)
    except PlauditError:
        return ()


def verdict(results: dict[str, str]) -> str:
    """Of a family: right, refused, wrong or not built."""
    if "not built" in results:
        return "not built"
    # A family that is refused as a policy is refused at the start of every run; what its parts would do is not asked.
    if any(results[check].startswith("refused") for check in ("log-probs", "saving")):
        return "refused"
    # `generate` of some families differs from the model's own forward pass: nothing can be equal to both.
    parts = [text for check, text in results.items() if check not in ("note", "generate")]
    return "wrong" if any(text.startswith("wrong") for text in parts) else "right"


@contextmanager
def _quiet() -> Iterator[None]:
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main(arguments: Sequence[str]) -> int:
    names = [name for name in arguments if name != "--save"]
    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}
    with _quiet():
        for name in names or (*FAMILIES, *VARIANTS):
            found[name] = checked(name)
            others = {check: text for check, text in found[name].items() if text != "right"}
            print(f"{name}: {verdict(found[name])}", json.dumps(others) if others else "", flush=True)
    counts = Counter(map(verdict, found.values()))
    print(", ".join(f"{count} {word}" for word, count in counts.most_common()))
    if not names or "--save" in arguments:
        save(found)
    return int(counts["wrong"] > 0)


def save(found: dict[str, dict[str, str]]) -> None:
    """Write what was found, beside what is kept of other families, and the page."""
    kept = DOCS / "models.json"
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    known = {name: (before | found)[name] for name in (*FAMILIES, *VARIANTS) if name in before | found}
    kept.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    verdicts = {name: verdict(results) for name, results in known.items()}
    text = page(known, verdicts, transformers_version, len(FAMILIES) + len(VARIANTS))
    (DOCS / "models.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
