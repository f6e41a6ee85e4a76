"""`plaudit export`: a trained model for transformers, vLLM, llama.cpp and Ollama, verified."""

from __future__ import annotations

import math

from plaudit.cli.parser import Parser, answer, show
from plaudit.errors import Refused

ABOUT = """Write what a run trained for other programs: merged (a safetensors directory for transformers and vLLM,
adapters merged), adapter (PEFT's layout), gguf:f16, gguf:q8_0, gguf:q4_0, gguf:q4_k_m, gguf:q5_k_m, gguf:q6_k
(llama.cpp, Ollama), int8, int4 (transformers with torchao). Each is loaded again and compared with the trained model:
tokens, distributions, perplexity, and with --samples the rewards of the run. The directory has a model card, README.md,
and the figures in export.json.

  plaudit export runs/ppo --to merged gguf:q8_0
  plaudit export runs/ppo --to gguf:q4_0 --require "gold_kept >= 0.9" """


def run(command: str, argv: list[str]) -> int:
    """Export, print the figures; a condition that does not hold ends with exit code 4."""
    parser = Parser("export", ABOUT)
    parser.add_argument("source", help="run, model or adapter directory, hub name, or GGUF file")
    parser.add_argument("--to", nargs="+", required=True, metavar="FORMAT", help="formats, one or several")
    parser.add_argument("--out", default="", metavar="DIR", help="where to (default: SOURCE/export)")
    parser.add_argument(
        "--require", action="append", default=[], metavar="CONDITION",
        help='exit code 4 unless it holds of every format, as "kl <= 0.05"; can be given several times',
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=int, default=0, help="measure rewards with so many responses to each prompt of the run"
    )
    given = parser.parse_args(argv)
    from plaudit.export.card import as_values
    from plaudit.stages.export import run_export

    made = run_export(given.source, given.to, given.out, require=given.require, samples=given.samples)
    for target, values in made.figures.items():
        lines = [f"  {name:<20}{f'{v.value:.3g}' if math.isnan(v.low) else v}" for name, v in values.items()]
        show(f"{target}\n" + "\n".join(lines))
    for note in made.notes:
        show(f"note  {note}")
    show(f"written to {made.folder}; README.md is the model card")
    answer(as_values(made.figures, made.notes) | {"failed": made.failed})
    if made.failed:
        raise Refused(
            "; ".join(made.failed), where=str(made.folder / "export.json"),
            cure="export to a format with more bits, or loosen the condition (--require); the files were written",
        )  # fmt: skip
    return 0
