"""The import rules of the house: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WIRE = {"protos", "tritonclient"}
WEB = {
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "fastapi",
    "uvicorn",
    "starlette",
    "pydantic",
    "protos",
    "tritonclient",
}
IO = {"pathlib", "os", "io", "socket", "shutil", "tempfile", "subprocess", "urllib", "http", "asyncio"}
PURE = {
    "teacher_server/model.py",
    "teacher_server/engine.py",
    "teacher_server/packing.py",
    "teacher_server/trips.py",
    "teacher_server/dense.py",
    "teacher_server/admission.py",
    "teacher_server/triton/batch.py",
    "trainer/teacher/dense.py",
    "teacher_server/oip_tensors.py",
    "teacher_server/vocabulary.py",
    "trainer/losses.py",
    "trainer/data/features.py",
    *(f"trainer/student/{name}.py" for name in ("hoser", "road_network", "graph_attention", "trajectory", "navigator")),
    "trainer/student/prefixes.py",
    *(f"trainer/generate/{name}.py" for name in ("route", "search", "expander", "lock_step", "draw")),
}
MAY_USE_THE_WIRE = {
    "teacher_server/grpc_api.py",
    "teacher_server/oip_api.py",
    "teacher_server/client.py",
    "teacher_server/loadgen/doors.py",
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as written."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def roots(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("package", "other"), [("teacher_server", "trainer"), ("trainer", "teacher_server")])
def test_the_two_sides_never_import_each_other(package: str, other: str) -> None:
    files = sources(package)
    assert len(files) > 10
    assert [name(f) for f in files if other in roots(f)] == []


def test_only_the_edges_know_the_wire() -> None:
    files = sources("teacher_server") + sources("trainer")
    users = {name(f) for f in files if roots(f) & WIRE}
    beyond = {user for user in users if user not in MAY_USE_THE_WIRE and not user.startswith("trainer/teacher/")}
    assert beyond == set()
    assert "teacher_server/grpc_api.py" in users  # the rule is about something


def test_the_core_is_pure() -> None:
    for relative in sorted(PURE):
        file = ROOT / relative
        assert roots(file) & (WEB | IO) == set(), relative


def test_a_bare_gpu_machine_can_import_the_core() -> None:
    """The core must come up where only torch and its companions are installed."""
    allowed = {"torch", "numpy", "scipy", "teacher_server", "trainer", "__future__"}
    standard = set(__import__("sys").stdlib_module_names)
    for relative in sorted(PURE):
        for file in [ROOT / relative, *_reached_from(ROOT / relative, set())]:
            assert roots(file) <= allowed | standard, f"{relative} reaches {name(file)}: {roots(file) - standard}"


def _reached_from(file: Path, seen: set[Path]) -> set[Path]:
    """Files of the project that importing a file runs."""
    for module in imports(file):
        found = ROOT / (module.replace(".", "/") + ".py")
        if found.exists() and found not in seen:
            seen.add(found)
            _reached_from(found, seen)
    return seen


def test_files_stay_small() -> None:
    long = {
        name(f): n
        for p in ("teacher_server", "trainer")
        for f in sources(p)
        if (n := len(f.read_text().splitlines())) > 300
    }
    assert long == {}
