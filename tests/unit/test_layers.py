"""docs/code.md lists the package from the bottom up; no import goes back up."""

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "triptych"


def rows():
    """The part of the package -> number of its row in the table."""
    table = (CHECKOUT / "docs" / "code.md").read_text().partition("\n## ")[0]
    found = {}
    for number, line in enumerate(table.splitlines()):
        place = line.split("|")[1] if line.startswith("| `") else ""
        for name in re.findall(r"`(?:triptych/)?(\w+)(?:/|\.py)`", place):
            found[name] = number
    return found


def imported(path):
    """The parts of the package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "triptych":
            names = [f"triptych.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say the whole name"
            names = [node.module]
        yield from (name.split(".")[1] for name in names if name.startswith("triptych."))


def test_no_import_goes_back_up():
    order, wrong = rows(), []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in imported(path):
            if order[other] > order[part]:
                wrong.append(f"{path.relative_to(CHECKOUT)} imports {other}")
    assert not wrong


def test_every_part_is_in_the_table_and_nothing_else():
    parts = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or list(path.glob("*.py"))
    }
    listed = {name for name in rows() if name != "triptych_export"}
    assert listed == parts - {"__init__"}
