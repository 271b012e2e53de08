"""docs/operations.md, every command of it, from top to bottom in one shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.line import city_teacher
from tests.trainer.datasets import small_city
from trainer.data.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.S)
# What an operator has installed: here it is the programs that are tested.
PROGRAMS = {"teacher": "teacher_server", "trainer": "trainer"}
# A training long enough to be upgraded under, without an option more in the guide.
LONG = {"optimizer_config": {"batch_size": 1, "max_epoch": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies before an operator."""
    root = tmp_path_factory.mktemp("operator")
    small_city(root / "city", trips=300)
    city_teacher(root / "teachers" / "city", prepare(root / "city", root / "cache").city)
    programs = root / "bin"
    programs.mkdir()
    for name, package in PROGRAMS.items():
        lines = ["#!/bin/sh", f'exec {sys.executable} -m {package} "$@"', ""]
        (programs / name).write_text("\n".join(lines))
        (programs / name).chmod(0o755)
    return root


@pytest.mark.slow
@pytest.mark.system
def test_the_guide_from_top_to_bottom(folder: Path) -> None:
    """In a network of its own, for its ports; what is installed is tested below."""
    story = "\n".join(BLOCKS[1:])
    assert "--data city --out runs/a" in story
    (folder / "settings.yaml").write_text(json.dumps(LONG))
    story = story.replace("--out runs/a --labels", "--config settings.yaml --out runs/a --labels")
    script = f"ip link set lo up\nset -eu -o pipefail\n{story}\n"
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }  # fmt: skip
    namespaces = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        done = subprocess.run(
            [*namespaces, "bash", "-c", script], cwd=folder, env=environment, stdout=out, stderr=err, timeout=200
        )
    told = (folder / "out").read_text() + (folder / "err").read_text()
    assert done.returncode == 0, told[-5000:]
    asked = json.loads((folder / "runs" / "a" / "summary.json").read_text())["teacher_calls"]
    assert {name for name, counts in asked["endpoints"].items() if counts["calls"]} == {
        "127.0.0.1:8001", "127.0.0.1:8003",
    }  # fmt: skip
    for name in ("tls.key", "tokens", "token-new", "token-of-trainers"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600, name
    for name in ("tls.crt", "trusted.crt"):
        assert (folder / name).stat().st_mode & 0o777 == 0o644, name
    assert (folder / "trusted.crt").read_text().endswith((folder / "tls.crt").read_text())  # the new one is shown
    for log in ("first.log", "second.log"):
        assert "Traceback" not in (folder / log).read_text()


@pytest.mark.slow
def test_what_the_guide_installs(tmp_path: Path) -> None:
    """The packages that ours needs are what the tests run with; here it is ours alone."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("protos", "teacher_server", "trainer"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = BLOCKS[0].replace("python3.11", sys.executable)
    environment = {**os.environ, "PIP_NO_DEPS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "bin" / "teacher").is_file()
    assert (tmp_path / "venv" / "bin" / "trainer").is_file()
