"""Small faults for the source of a module, one at a time: what a slip of the pen would do to a formula.

A sign is flipped, a mask or a factor dropped, a clamp or a detach left out, a minimum taken for a maximum, chosen
swapped with rejected, a step shifted by one, a mean taken over the microbatch instead of the optimizer step.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SKIPPED_FUNCTIONS = ("__post_init__", "needs", "cautions", "advice", "refuse_impossible", "check_counts")
"""What they do is refuse, declare or advise, which has tests of its own and is no formula."""
SWAPPED = (
    ("chosen", "rejected"), ("logprobs", "old_logprobs"), ("logprobs", "ref_logprobs"),
    ("old_logprobs", "ref_logprobs"), ("old_logprobs", "sampled_logprobs"), ("values", "returns"),
)  # fmt: skip
OPPOSITE = {
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "min": "max",
    "amax": "amin",
    "amin": "amax",
}
DROPPED_METHODS = ("clamp", "detach", "exp", "square", "sqrt", "abs", "expm1")
DROPPED_FUNCTIONS = (
    "exp",
    "log",
    "expm1",
    "logsigmoid",
    "log1p",
    "rsqrt",
    "sqrt",
    "softplus",
    "sigmoid",
    "relu",
)
MEANS = ("weighted_sum", "token_mean", "masked_mean", "masked_sum", "mean")
AGGREGATIONS = {
    "token_mean": "sequence_mean_token_mean",
    "sequence_mean_token_mean": "token_mean",
    "sequence_mean_token_sum": "sequence_mean_token_mean",
    "constant": "token_mean",
}
FLIPPED = {
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.Lt,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    module: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What stays the same when lines move."""
        return self.module, self.function, self.before, self.after

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}: {self.before}  ->  {self.after}"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All of them, in the order of the source."""
    tree = ast.parse(source)
    for function, place in _places(tree):
        for replacement in _faults(_at(tree, place)):
            changed = copy.deepcopy(tree)
            _put(changed, place, replacement)
            node = _at(tree, place)
            after = ast.unparse(ast.fix_missing_locations(replacement))
            yield Mutant(
                module, function, getattr(node, "lineno", 0), _short(ast.unparse(node)), _short(after),
                ast.unparse(ast.fix_missing_locations(changed)),
            )  # fmt: skip


Place = tuple[tuple[str, int | None], ...]
"""The way from the root to a node: field names, with an index where the field is a list."""


def _places(tree: ast.Module) -> Iterator[tuple[str, Place]]:
    """Every node inside a function that is worth a fault, with the name of the function, ``Class.method`` or plain."""

    def walk(node: ast.AST, place: Place, scope: str, inside: bool) -> Iterator[tuple[str, Place]]:
        for field, value in ast.iter_fields(node):
            if isinstance(node, ast.FunctionDef) and field != "body":
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or _skipped(child):
                    continue
                here = (*place, (field, index))
                if inside:
                    yield scope, here
                opens = isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not inside
                name = f"{scope}.{child.name}".lstrip(".") if opens else scope  # type: ignore[attr-defined]
                yield from walk(child, here, name, inside or isinstance(child, ast.FunctionDef))

    yield from walk(tree, (), "", False)


def _skipped(node: ast.AST) -> bool:
    """Assertions, docstrings, errors, annotations; and metrics, which are seen and do not teach."""
    if isinstance(node, ast.FunctionDef):
        return node.name in SKIPPED_FUNCTIONS or node.name.rstrip("s").endswith("metric")
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any("metrics" in ast.unparse(target) for target in targets)
    if isinstance(node, ast.Dict):
        return any(isinstance(key, ast.Constant) and "/" in str(key.value) for key in node.keys)
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or isinstance(node, (ast.Assert, ast.Raise, ast.AnnAssign))


def _at(tree: ast.AST, place: Place) -> ast.AST:
    for field, index in place:
        value = getattr(tree, field)
        tree = value if index is None else value[index]
    return tree


def _put(tree: ast.AST, place: Place, node: ast.AST) -> None:
    parent, (field, index) = _at(tree, place[:-1]), place[-1]
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _faults(node: ast.AST) -> Iterator[ast.AST]:
    rule = RULES.get(type(node))
    if rule is not None:
        yield from rule(copy.deepcopy(node))


def _unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    """``-x -> x``, ``~mask -> mask``, ``not x -> x``; not of a bare number, such as the dimension -1."""
    if not isinstance(node.operand, ast.Constant) or isinstance(node.operand.value, float):
        yield node.operand


def _binary(node: ast.BinOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Add):
        yield ast.BinOp(node.left, ast.Sub(), node.right)
    elif isinstance(node.op, ast.Sub):
        yield ast.BinOp(node.left, ast.Add(), node.right)
    elif isinstance(node.op, ast.Mult):
        yield from (node.left, node.right)
    elif isinstance(node.op, (ast.Div, ast.Pow)):
        yield node.left
    elif isinstance(node.op, (ast.BitAnd, ast.BitOr)) and not isinstance(
        node.right, (ast.Dict, ast.DictComp)
    ):
        yield from (node.left, node.right)


def _compare(node: ast.Compare) -> Iterator[ast.AST]:
    flipped = FLIPPED.get(type(node.ops[0]))
    if flipped is not None and len(node.ops) == 1:
        yield ast.Compare(node.left, [flipped()], node.comparators)


def _if(node: ast.If | ast.IfExp) -> Iterator[ast.AST]:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    yield node


def _slice(node: ast.Slice) -> Iterator[ast.AST]:
    """``x[:-1] <-> x[1:]``: off by one."""
    text = ast.unparse(node)
    if text in (":-1", "1:"):
        one, minus = ast.Constant(1), ast.UnaryOp(ast.USub(), ast.Constant(1))
        yield ast.Slice(lower=one) if text == ":-1" else ast.Slice(upper=minus)


def _subscript(node: ast.Subscript) -> Iterator[ast.AST]:
    """``x[:, t] -> x[:, t - 1]``: the step before."""
    index = node.slice
    if isinstance(index, ast.Tuple) and isinstance(last := index.elts[-1], ast.Name) and last.id == "t":
        index.elts[-1] = ast.BinOp(last, ast.Sub(), ast.Constant(1))
        yield node


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    """A factor doubled; another way of taking the mean. Tiny numbers only guard divisions."""
    if isinstance(node.value, float) and abs(node.value) > 1e-3:
        yield ast.Constant(2 * node.value)
    elif isinstance(node.value, str) and node.value in AGGREGATIONS:
        yield ast.Constant(AGGREGATIONS[node.value])


def _assign(node: ast.Assign) -> Iterator[ast.AST]:
    """``mean = batch.weighted_sum -> mean = torch.mean``: the mean of a microbatch instead of that of the step."""
    for pick in ast.walk(node.value):
        if (
            isinstance(pick, ast.Attribute)
            and pick.attr == "weighted_sum"
            and not isinstance(node.value, ast.Call)
        ):
            changed = copy.deepcopy(node)
            for found in ast.walk(changed.value):
                if isinstance(found, ast.Attribute) and found.attr == "weighted_sum":
                    found.value, found.attr = ast.Name("torch", ast.Load()), "mean"
            yield changed
            return


def _call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    library = isinstance(receiver, ast.Name) and receiver.id in ("torch", "F", "math")
    if name == "where" and len(node.args) == 3:
        yield node.args[1]
        yield ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords)
    if name in DROPPED_METHODS and receiver is not None and not library:
        yield receiver
    if name in DROPPED_FUNCTIONS and library and node.args:
        yield node.args[0]
    if name in OPPOSITE:
        yield _renamed(node, OPPOSITE[name])
    if name in MEANS and node.args and name != "mean":
        first = node.args[1] if name == "token_mean" and len(node.args) == 2 else node.args[0]
        yield ast.Call(ast.Attribute(first, "sum" if name == "masked_sum" else "mean", ast.Load()), [], [])
    yield from _swaps(node)


def _renamed(node: ast.Call, name: str) -> ast.Call:
    changed = copy.deepcopy(node)
    if isinstance(changed.func, ast.Attribute):
        changed.func.attr = name
    elif isinstance(changed.func, ast.Name):
        changed.func.id = name
    return changed


def _swaps(node: ast.Call) -> Iterator[ast.AST]:
    """Two neighbouring arguments whose names are easily taken for each other."""
    names = [ast.unparse(arg).rpartition(".")[2] for arg in node.args]
    for i, pair in enumerate(zip(names, names[1:], strict=False)):
        if pair in SWAPPED or pair[::-1] in SWAPPED:
            changed = copy.deepcopy(node)
            changed.args[i], changed.args[i + 1] = changed.args[i + 1], changed.args[i]
            yield changed


RULES: dict[type[ast.AST], Callable[..., Iterator[ast.AST]]] = {
    ast.UnaryOp: _unary, ast.BinOp: _binary, ast.Compare: _compare, ast.If: _if, ast.IfExp: _if, ast.Slice: _slice,
    ast.Subscript: _subscript, ast.Constant: _constant, ast.Assign: _assign, ast.Call: _call,
}  # fmt: skip


def _short(text: str, width: int = 88) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
