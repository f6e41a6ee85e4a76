"""A calculator that a policy can call in plain text, and questions it should call it for.

The policy writes ``<calc>3+4</calc>``; the row goes on with ``<result>7</result>``, and the policy writes its answer.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

from plaudit import Done, Rollout

CALL = re.compile(r"<calc>(.*?)</calc>\s*$", re.DOTALL)
LONGEST, LARGEST = 100, 10**12
OPERATIONS: dict[type[ast.operator] | type[ast.unaryop], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


class Calculator:
    """Works out what stands at the end of a turn as a call; a turn without a call is the answer."""

    max_turns = 4
    stop = ("</calc>",)

    def reply(self, rollout: Rollout) -> str | Done:
        """The result of the call, or the end of the rollout."""
        call = CALL.search(rollout.turns[-1].text)
        if call is None:
            return Done()
        try:
            return f"<result>{calculate(call[1]):.12g}</result>"
        except (ValueError, ArithmeticError) as error:
            return f"<result>error: {error}</result>"  # the policy may read it and call again


def calculate(text: str) -> float:
    """The value of numbers joined by + - * / and parentheses.

    What the policy writes is never run: it is parsed, and only numbers and these operations are worked out.

    >>> calculate("3 + 4*(2 - 1)")
    7
    >>> calculate("2**9")
    Traceback (most recent call last):
    ValueError: only numbers, + - * / and parentheses are worked out

    Raises:
        ValueError: anything else, or a text that is too long.
        ArithmeticError: division by zero, or a number that is too large.
    """
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("not an expression") from None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            result: float = number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            result = OPERATIONS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATIONS:
            result = OPERATIONS[type(op)](_value(operand))
        case _:
            raise ValueError("only numbers, + - * / and parentheses are worked out")
    if abs(result) > LARGEST:
        raise OverflowError("the number is too large")
    return result
