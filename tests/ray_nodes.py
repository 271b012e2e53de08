"""A Ray cluster of two nodes on this machine, in a network and process namespace of its own (needs root).

Ray listens on every address of a machine: here there is none but the loopback's. Everything ends with the namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD, OTHER = "127.0.0.1", "127.0.0.2"
ADDRESS = f"{HEAD}:6379"
SOON_DEAD = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
SMALL = ["--num-cpus=1", "--object-store-memory=100000000"]
RAY = [str(Path(sys.executable).with_name("ray")), "start", "--disable-usage-stats"]


class RayNodes:
    """Use it in a `with`. `flags` of `ray start` for both nodes."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags

    def __enter__(self) -> RayNodes:
        self._folder = tempfile.mkdtemp(prefix="ray-")  # short, for the sockets in it
        # SIGTERM ends the children of a namespace's first process only if that ends, too.
        namespaces = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        command = [*namespaces, "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "up\n"
        self._inside = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0]
        self._run([*RAY, "--head", f"--node-ip-address={HEAD}", "--port=6379", "--include-dashboard=false",
                   f"--temp-dir={self._folder}", *SMALL, *self._flags])  # fmt: skip
        self._run([*RAY, f"--address={ADDRESS}", f"--node-ip-address={OTHER}", *SMALL, *self._flags])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def inside(self, command: list[str]) -> list[str]:
        """The same command, but on the first of the nodes."""
        return ["nsenter", f"--target={self._inside}", "--net", "--pid", "--mount", *command]

    def kill_the_other(self) -> None:
        """SIGKILL to the second node's own process; all that it runs ends with it."""
        os.kill(self._raylet(OTHER), signal.SIGKILL)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            self.inside(command),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, **SOON_DEAD},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _raylet(self, node: str) -> int:
        wanted = {f"--node_ip_address={node}", f"--temp_dir={self._folder}"}
        for process in Path("/proc").glob("[0-9]*"):
            words = _words(process)
            if words[0].endswith("/raylet") and wanted <= set(words):
                return int(process.name)
        raise AssertionError(f"node {node} does not run")


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text().split("\0")
    except OSError:  # it has just ended
        return [""]
