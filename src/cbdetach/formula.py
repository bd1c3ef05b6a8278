"""Curves that a user gives: a formula of a few named numbers, or a table that is interpolated. Nothing is executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError

Floats = npt.NDArray[np.float64]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "min": np.minimum,
    "max": np.maximum,
}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def evaluate(text: str, names: Mapping[str, Floats], option: str) -> Floats:
    """The value of a formula: numbers, `names`, + - * / ** and the functions of `FUNCTIONS`; nan where undefined.

    Raises
    ------
    InputError
        Anything else, naming `option`.
    """

    def wrong(what: str) -> InputError:
        return InputError(
            f"{option}: must be a formula of {', '.join(names)}, numbers, + - * / ** and {', '.join(FUNCTIONS)}; "
            f"got {text!r}: {what}. Write for example 1 - {next(iter(names))}."
        )

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return float(node.value)
        if isinstance(node, ast.Name):
            if node.id not in names:
                raise wrong(f"{node.id} is not known")
            return names[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            function = FUNCTIONS.get(node.func.id)
            if function is None or len(node.args) != (2 if node.func.id in ("min", "max") else 1):
                raise wrong(f"{node.func.id} does not take these arguments")
            return function(*map(value, node.args))
        raise wrong(f"{ast.unparse(node)} is not allowed")

    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        raise wrong("it cannot be read") from None
    shape = next(iter(names.values())).shape
    with np.errstate(all="ignore"):
        try:
            result = value(tree)
        except (OverflowError, ZeroDivisionError, RecursionError, TypeError):  # of plain numbers
            raise wrong("it has no value") from None
    if np.iscomplexobj(result):
        raise wrong("it has no real value")
    return np.broadcast_to(np.asarray(result, dtype=np.float64), shape).copy()
