"""Files and functions stay small enough to be read at once. There is no list of exceptions."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LINES = 400
FUNCTION_LINES = 60
SCRIPT_LINES = 80
PYTHON_FOLDERS = ["inferq", "api", "queues", "storage", "workers", "watchers", "benchmarks", "examples"]


def lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def sources() -> Iterator[Path]:
    for folder in PYTHON_FOLDERS:
        yield from (ROOT / folder).rglob("*.py")
        yield from (ROOT / folder).rglob("*.lua")
    for pattern in ("*.ts", "*.tsx"):
        yield from (ROOT / "console" / "src").rglob(pattern)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_files_stay_within_budget() -> None:
    assert not {str(path.relative_to(ROOT)): lines(path) for path in sources() if lines(path) > FILE_LINES}


def test_functions_stay_within_budget() -> None:
    found = {
        name: length
        for path in sources()
        if path.suffix == ".py"
        for name, length in functions(path)
        if length > FUNCTION_LINES
    }
    assert not found


def test_scripts_stay_within_budget() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    assert scripts
    assert not {path.name: lines(path) for path in scripts if lines(path) > SCRIPT_LINES}
