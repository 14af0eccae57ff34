"""FastDeploy's image has Python 3.8, in which no class outside typing takes brackets or |."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path
    for folder in ("triptych", "model_repository", "backends", "client")
    for path in (CHECKOUT / folder).rglob("*.py")
    if "gateway" not in path.parts
)


class Evaluated(ast.NodeVisitor):
    """What Python 3.9 or 3.10 evaluates and 3.8 cannot. With the import from __future__ annotations
    are not evaluated, and none stands where that import does not."""

    def __init__(self, names):
        self.names, self.found = names, []

    def visit_AnnAssign(self, node):
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node):
        pass

    def visit_FunctionDef(self, node):
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    def visit_Subscript(self, node):
        if self.is_class(node.value):
            self.found.append((node.lineno, ast.unparse(node)))
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if isinstance(node.op, ast.BitOr) and (
            self.is_class(node.left) or self.is_class(node.right)
        ):
            self.found.append((node.lineno, ast.unparse(node)))
        self.generic_visit(node)

    def is_class(self, node):
        try:
            value = eval(ast.unparse(node), dict(self.names))
        except Exception:
            return False
        return isinstance(value, type)


def found(text, names):
    visitor = Evaluated(names)
    visitor.visit(ast.parse(text))
    return visitor.found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Done = Callable[[int], None]", True),
        ("Pairs = typing.Sequence[tuple[int, str]]", True),
        ("def f():\n    return list[int]()", True),
        ("Number = int | float", True),
        ("Pairs = typing.Sequence[typing.Tuple[int, str]]", False),
        ("x: list[int] = [1][0]", False),
        ("def f(x: list[int]) -> dict[str, int]: ...", False),
        ("flags = 1 | 2", False),
    ],
)
def test_what_is_found(text, wrong):
    import typing
    from collections.abc import Callable

    assert bool(found(text, {"typing": typing, "Callable": Callable})) == wrong


def names_in(text):
    """What the module's own imports give, as far as this environment has it."""
    names = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            try:
                exec(ast.unparse(node), names)
            except ImportError:
                continue
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_python_3_8_can_evaluate_it(path):
    text = path.read_text()
    annotated = ") -> " in text
    assert "from __future__ import annotations" in text or not annotated
    assert found(text, names_in(text)) == []
