"""The rules of the house, checked on the source tree: floors, fences, cycles, sizes, and what is never used.

Each check takes a `Tree` and returns one line for each violation, so a test can run it on a broken tree too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLOORS = {
    "errors": 0, "machine": 0, "awaited": 0, "records": 0, "experience": 0, "statistics": 0,
    "algorithms": 1, "functional": 1, "data": 1, "preferences": 1, "config": 1,
    "runtime": 2, "live": 2, "jobs": 2, "models": 2, "tracking": 2,
    "generation": 3, "rewards": 3, "runs": 3,
    "rollouts": 4, "evaluation": 4, "export": 4,
    "training": 5,
    "backends": 6,
    "stages": 7, "loop": 7,
    "api": 8, "cli": 8, "annotate": 8, "demo": 8, "serving": 8,
}  # fmt: skip
NEIGHBOURS = {
    ("algorithms", "functional"): "an algorithm is made of pure functions",
    ("algorithms", "config"): "its fields are settings, with their bounds",
    ("loop", "stages"): "a round is made of the runs of other stages",
    ("cli", "annotate"): "the command `plaudit annotate` opens the web door",
    ("cli", "serving"): "the command `plaudit serve` opens the door for programs",
    ("serving", "annotate"): "both doors listen alike: the socket, slow clients, names of this machine",
    ("cli", "demo"): "the command `plaudit quickstart` runs the demo",
}
"""Which part may import which neighbour on its floor, and why. The ground floor is one room."""

FENCES = {
    "torch": ("functional", "experience", "data.collate", "runtime", "models", "generation", "rewards", "algorithms",
              "rollouts", "runs", "training", "backends", "stages", "export", "cli"),
    "transformers": ("models", "generation", "export"),
    "peft": ("models", "generation", "export"),
    "gguf": ("models", "export"),
    "bitsandbytes": ("models",),
    "torchao": ("models", "export"),
    "llama_cpp": ("export",),
    "datasets": ("data",),
    "pyarrow": ("data",),
    "ray": ("backends.ray",),
    "vllm": ("generation.vllm",),
    "fastapi": ("annotate", "serving"),
    "starlette": ("annotate", "serving"),
    "uvicorn": ("annotate", "serving"),
    "argon2": ("annotate",),
    "nh3": ("annotate",),
    "sqlalchemy": ("preferences.store",),
    "alembic": ("preferences.store",),
    "wandb": ("tracking",),
    "tensorboard": ("tracking",),
    "mlflow": ("tracking",),
    "trackio": ("tracking",),
    "matplotlib": ("evaluation",),
    "jinja2": ("evaluation", "annotate", "export"),
    "rich": ("tracking", "cli"),
    "filelock": ("runs",),
    **dict.fromkeys(("urllib.request", "http.client", "urllib3", "requests", "httpx", "aiohttp"),
                    ("rewards.remote", "generation.vllm")),
    # A stage that reaches for a module, a generator or a learner of this process cannot run on a cluster: stages, loops
    # and evaluation know the protocols of runtime.py, and `plaudit.backends` opens what stands behind them.
    "plaudit.models": ("models", "generation", "backends", "export", "demo"),
    "plaudit.generation": ("generation", "backends"),
    "plaudit.backends.local": ("backends",),
}  # fmt: skip
"""Third-party package, client of the network, or a room of ours -> where it may be imported."""

BEHIND_THE_RUNTIME = ("models", "generation", "backends.local")
"""What stages must not import: a run on another backend has none of it."""

BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "torch.load", "yaml.load", "os.system", "numpy.load", "np.load"}
LIMITS = {"file": 400, "function": 60, "nesting": 3, "parameters": 7}
FOLDER, FOLDER_OF_A_KIND = 12, 20
"""Files in a folder; the second where each file is one of a kind, so that nobody has to know them all to find one."""
OF_A_KIND = ("algorithms", "functional", "cli")
SMALL = 60
"""Lines below which a file with one reader, in its own folder, belongs into that reader."""
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Tree:
    """A package's modules, parsed."""

    package: str
    modules: dict[str, ast.Module]
    lines: dict[str, int]
    packages: frozenset[str]

    @classmethod
    def read(cls, root: Path, package: str = "plaudit") -> Tree:
        """Parse every module of ``root/package``."""
        modules, lines, packages = {}, {}, set()
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if name.endswith(".__init__"):
                name = name.removesuffix(".__init__")
                packages.add(name)
            text = path.read_text(encoding="utf-8")
            modules[name], lines[name] = ast.parse(text), text.count("\n")
        return cls(package, modules, lines, frozenset(packages))

    def part(self, module: str) -> str:
        """The part of the house of a module: ``plaudit.data.load`` -> ``data``; "" for the front door."""
        return (module.split(".") + [""])[1]

    def imports(self, module: str) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything imported, also inside functions and under TYPE_CHECKING."""
        for node in ast.walk(self.modules[module]):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)

    def own(self, name: str) -> str:
        """The module of the package that an imported name comes from; empty if it is none of ours."""
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name if name != self.package else ""

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".") if module in self.packages else module.split(".")[:-1]
        parts = parts[: len(parts) - node.level + 1]
        return ".".join(parts + ([node.module] if node.module else []))


def floors(tree: Tree) -> list[str]:
    """Imports that go up, or to a neighbour."""
    found = []
    for module in tree.modules:
        here = tree.part(module)
        if here and here not in FLOORS:
            found.append(f"{module}: {here!r} has no floor; add it to FLOORS in scripts/house.py")
            continue
        for line, name in tree.imports(module):
            there = tree.part(tree.own(name))
            if not there or not here or here == there or (here, there) in NEIGHBOURS:
                continue
            level, target = FLOORS[here], FLOORS.get(there, 0)
            if target > level or (target == level and level > 0):
                found.append(f"{module}:{line} imports {name}: floor {target} from floor {level}")
    return found


def fences(tree: Tree) -> list[str]:
    """Third-party packages, and rooms of ours, that are imported outside the parts that may use them."""
    found = []
    for module in tree.modules:
        inside = module.removeprefix(tree.package + ".")
        for line, name in tree.imports(module):
            allowed = next((FENCES[part] for part in _prefixes(name) if part in FENCES), None)
            if allowed is not None and not any(inside == a or inside.startswith(a + ".") for a in allowed):
                found.append(f"{module}:{line} imports {name}, allowed in {', '.join(allowed)} only")
    return found


def past_the_runtime(tree: Tree) -> list[str]:
    """Stages that reach for a model, a generator or a concrete backend instead of the protocols of `runtime`."""
    hidden = tuple(f"{tree.package}.{part}" for part in BEHIND_THE_RUNTIME)
    return [
        f"{module}:{line} imports {name}: a stage knows the runtime and backends.open(), not what stands behind them"
        for module in tree.modules
        if tree.part(module) == "stages"
        for line, name in tree.imports(module)
        if any(name == part or name.startswith(part + ".") for part in hidden)
    ]


def _prefixes(name: str) -> Iterator[str]:
    """``a``, ``a.b``, ``a.b.c`` of ``a.b.c``."""
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def cycles(tree: Tree) -> list[str]:
    """Modules that import each other, directly or around corners, imports inside functions included."""
    graph = {m: {tree.own(name) for _, name in tree.imports(m)} - {"", m} for m in tree.modules}
    reach = {m: _reachable(graph, m) for m in graph}
    loops = {frozenset(n for n in reach[m] if m in reach[n]) | {m} for m in graph if m in reach[m]}
    return [f"import cycle: {', '.join(sorted(loop))}" for loop in loops]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        fresh = graph.get(todo.pop(), set()) - seen
        seen |= fresh
        todo.extend(fresh)
    return seen


def sizes(tree: Tree) -> dict[str, int]:
    """``what: where`` -> size of everything over its limit."""
    found = {f"file {m}": n for m, n in tree.lines.items() if n > LIMITS["file"]}
    for module, body in tree.modules.items():
        for node, name in _functions(body, module):
            measured = {
                "function": (node.end_lineno or 0) - node.lineno + 1,
                "nesting": nesting(node),
                "parameters": parameters(node),
            }
            found |= {f"{what} {name}": n for what, n in measured.items() if n > LIMITS[what]}
    return found


def crowds(tree: Tree) -> list[str]:
    """Folders with more files than one can keep in mind."""
    files: dict[str, int] = {}
    for module in tree.modules.keys() - tree.packages:
        folder = module.rpartition(".")[0]
        files[folder] = files.get(folder, 0) + 1
    limits = {
        folder: FOLDER_OF_A_KIND if folder.rpartition(".")[2] in OF_A_KIND else FOLDER for folder in files
    }
    return [
        f"{folder}: {count} files, at most {limits[folder]}"
        for folder, count in sorted(files.items())
        if count > limits[folder]
    ]


def lonely(tree: Tree) -> list[str]:
    """Small files that only one other file in their folder reads: they make sense beside it alone."""
    readers: dict[str, set[str]] = {module: set() for module in tree.modules}
    for module in tree.modules:
        for _, name in tree.imports(module):
            own = tree.own(name)
            if own and own != module:
                readers[own].add(module)
    found = []
    for module in sorted(tree.modules.keys() - tree.packages):
        folder = module.rpartition(".")[0]
        alone = len(readers[module]) == 1 and next(iter(readers[module])).rpartition(".")[0] == folder
        if alone and tree.lines[module] < SMALL:
            found.append(f"{module}: {tree.lines[module]} lines, read by {next(iter(readers[module]))} only")
    return found


def _functions(body: ast.AST, name: str) -> Iterator[tuple[Function, str]]:
    for node in ast.iter_child_nodes(body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, f"{name}.{node.name}"
        inner = f"{name}.{node.name}" if isinstance(node, (Function, ast.ClassDef)) else name
        yield from _functions(node, inner)


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Deepest block inside block; an ``elif`` is as deep as its ``if``, a nested function starts anew."""
    deepest = depth
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (Function, ast.Lambda)):
                continue
            chained = isinstance(node, ast.If) and name == "orelse" and isinstance(child, ast.If)
            step = isinstance(child, BLOCKS) and not (chained and len(node.orelse) == 1)  # type: ignore[attr-defined]
            deepest = max(deepest, nesting(child, depth + step))
    return deepest


def parameters(node: Function) -> int:
    """Parameters without self and cls; ``*args`` and ``**kwargs`` count one each."""
    args = node.args
    names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")]) + bool(args.vararg) + bool(args.kwarg)


def banned(tree: Tree) -> list[str]:
    """Anything that can run code from a file or a text: pickle, eval, torch.load, shell, remote code."""
    found = []
    for module, body in tree.modules.items():
        for line, name in tree.imports(module):
            if name.split(".")[0] in BANNED_MODULES:
                found.append(f"{module}:{line} imports {name}")
        for node in ast.walk(body):
            if isinstance(node, ast.Call):
                found += [f"{module}:{node.lineno} {what}" for what in _dangers(node)]
    return found


def _dangers(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    if name in BANNED_CALLS:
        yield f"calls {name}"
    for keyword in call.keywords:
        on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        if on and keyword.arg in ("shell", "trust_remote_code", "allow_pickle"):
            yield f"passes {keyword.arg}=True"


def main() -> int:
    """Print all violations of the tree beside this script."""
    tree = Tree.read(Path(__file__).parents[1] / "src")
    found = floors(tree) + fences(tree) + past_the_runtime(tree) + cycles(tree) + banned(tree)
    found += crowds(tree) + lonely(tree)
    found += [f"{where}: {size}" for where, size in sizes(tree).items()]
    print("\n".join(found) or f"{len(tree.modules)} modules, {sum(tree.lines.values())} lines: in order")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
