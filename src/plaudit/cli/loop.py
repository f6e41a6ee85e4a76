"""`plaudit loop`: rounds of sampling, asking, reward model, policy and evaluation; the same command goes on."""

from __future__ import annotations

from plaudit.cli.parser import ANYWAY, answer, parse_flags, show, split_files
from plaudit.jobs.loop import LoopJob


def run(command: str, argv: list[str]) -> int:
    """Carry out the rounds, or go on with them, and say where the page is."""
    files, flags = split_files(argv)
    overrides = parse_flags(command, LoopJob, flags)
    anyway = bool(overrides.pop(ANYWAY, False))
    from plaudit.loop.plan import read_plan
    from plaudit.loop.rounds import run_loop
    from plaudit.runs.files import LOOP, read_json

    out = run_loop(read_plan(files, overrides), anyway=anyway)
    rounds = read_json(out / LOOP)["rounds"]
    answer({"run": str(out), "rounds": rounds})
    for number, steps in enumerate(rounds, 1):
        show(f"round {number}  {_figures(steps['evaluate'])}")
    show(f"\npolicy  {out / f'round-{number}' / steps['policy']['command'] / 'model'}\nreport  {out / 'report.html'}")
    return 0


def _figures(evaluated: dict[str, object]) -> str:
    """What a round reached against the SFT model, on one line."""
    names = {"gold_difference": "gold", "reward_difference": "reward", "win_rate": "wins", "kl": "KL"}
    parts = []
    for name, label in names.items():
        value, ends = evaluated.get(name), evaluated.get(f"{name}_ci")
        if isinstance(value, float):
            known = isinstance(ends, list) and None not in ends
            interval = f" [{ends[0]:.3g}, {ends[1]:.3g}]" if known and isinstance(ends, list) else ""
            sign = "+" if "difference" in name else ""
            parts.append(f"{label} {value:{sign}.3g}{interval}")
    return ", ".join(parts)
