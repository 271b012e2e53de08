"""`--engine ray` on two nodes: the files of a plain run, also when a node is killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.line import Line
from tests.integration.test_label import SMALL_REQUESTS, contents, end, label, stop_at, words
from tests.ray_nodes import ADDRESS, RayNodes
from tests.trainer.datasets import files_in, refused, trainer

pytestmark = [pytest.mark.system, pytest.mark.slow]
# Small chunks, so that a small city has many.
SMALL_CHUNKS = """
import trainer.data.trip_files
from trainer.__main__ import main
trainer.data.trip_files.CHUNK = 7
main()
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with RayNodes() as found:
        yield found


def begin(nodes: RayNodes, code: str, *flags: str) -> subprocess.Popen[str]:
    command = nodes.inside([sys.executable, "-c", code, *flags, "--engine", "ray"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ADDRESS}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def prepared(nodes: RayNodes, data: Path, cache: Path, status: int = 0) -> tuple[str, str]:
    return end(begin(nodes, SMALL_CHUNKS, "prepare", "--data", str(data), "--cache", str(cache)), status)


def test_prepare(line: Line, nodes: RayNodes, tmp_path: Path) -> None:
    prepared(nodes, line.data, tmp_path / "ray")
    trainer("prepare", "--data", line.data, "--cache", tmp_path / "plain")
    assert files_in(tmp_path / "ray").keys() == files_in(tmp_path / "plain").keys()
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")


def test_a_bad_trip_is_named_as_in_a_plain_run(
    line: Line, nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.trip_files.CHUNK", 7)
    data = tmp_path / "data"
    shutil.copytree(line.data, data)
    lines = (data / "train.csv").read_text().splitlines()
    lines[20] = lines[20].replace(" ", " 99999999", 1)  # in its list of roads
    lines[29] = lines[29].replace(" ", " 99999999", 1)  # another one, for another node
    lines[40] = "1"  # too few fields: seen first by whoever reads ahead
    (data / "train.csv").write_text("\n".join(lines) + "\n")
    _, told = prepared(nodes, data, tmp_path / "cache", 2)
    plain = refused(trainer("prepare", "--data", data, "--cache", tmp_path / "cache"), "train.csv:21: unknown road id")
    assert told.splitlines()[-1] == plain


def test_a_killed_node_only_costs_time(line: Line, nodes: RayNodes, tmp_path: Path) -> None:
    """Each node serves a teacher of its own; it is killed with its node, and asked anew from the other one."""
    label_while_a_node_dies(line, nodes, tmp_path)


def test_a_node_that_takes_its_gpu_away_only_costs_time(line: Line, tmp_path: Path) -> None:
    """Its asker has no place any more: the other one has the last GPU. They are declared; the teachers use none."""
    with RayNodes("--num-gpus=1") as nodes:
        label_while_a_node_dies(line, nodes, tmp_path)


def label_while_a_node_dies(line: Line, nodes: RayNodes, tmp_path: Path) -> None:
    address = f"local:{line.teacher}"
    label(line, tmp_path / "plain", address, 4)
    labels = tmp_path / "ray"
    process = begin(nodes, SMALL_REQUESTS, *words(line, labels, address, 4))

    class Node:
        poll = staticmethod(process.poll)

        @staticmethod
        def send_signal(number: signal.Signals) -> None:
            assert process.poll() is None, "it was too fast"
            nodes.kill_the_other()

    stop_at(Node, labels, 5, signal.SIGKILL)  # type: ignore[arg-type]
    end(process)
    assert contents(labels) == contents(tmp_path / "plain")


def test_without_a_cluster(line: Line, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9"}
    command = [sys.executable, "-m", "trainer", "prepare", "--data", str(line.data), "--cache", str(tmp_path)]
    done = subprocess.run([*command, "--engine", "ray"], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 2
    assert "--engine ray: no Ray cluster answers" in done.stderr
    assert "ray start --head" in done.stderr
    assert "Traceback" not in done.stderr
