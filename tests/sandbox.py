"""A service's own command as a process: restricted as compose.yaml says, but without a container engine.

`Sandbox` needs root and Debian's util-linux and iproute2. It gives a process a root file system of its own, read-only
but for the mounts and tmpfs of the service, the service's user without any capability, and a network that only the
services of one sandbox share, in which every service's name is 127.0.0.1, or what `scale` says. The Python in it is the
tests' own.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.compose import ROOT, Service

SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")  # what stands for the base image
DEVICES = ("null", "urandom", "zero")
SOURCES = ("protos", "teacher_server", "trainer")
NAME_SERVER = "127.0.0.11"  # as Docker's
DNSMASQ = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root")


class Sandbox:
    """Runs services that see each other, and nothing else. Use it in a `with`."""

    def __init__(self, folder: Path, services: dict[str, Service]) -> None:
        """`folder`: an empty one; each volume becomes a folder in it."""
        self.folder, self.services = folder, services
        self.running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Sandbox:
        self._name(self.services)
        (self.folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
        command = "ip link set lo up && echo up && exec sleep 1000"
        self._network = subprocess.Popen(["unshare", "--net", "sh", "-c", command], stdout=subprocess.PIPE, text=True)
        assert self._network.stdout
        assert self._network.stdout.readline() == "up\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._network.stdout
        for process in (*self.running.values(), self._network):
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def scale(self, name: str, addresses: Sequence[str]) -> None:
        """From now on a service's name leads to these addresses, by a name server, as with the engine."""
        self._name([other for other in self.services if other != name])
        records = self.folder / "records"
        records.write_text("".join(f"{address} {name}\n" for address in addresses))
        if server := self.running.get("dnsmasq"):
            server.send_signal(signal.SIGHUP)
            return
        flags = ["--bind-interfaces", f"--listen-address={NAME_SERVER}", f"--addn-hosts={records}", "--pid-file="]
        self.running["dnsmasq"] = subprocess.Popen([*self._inside(), *DNSMASQ, *flags], text=True)

    def up_at(self, name: str, address: str) -> subprocess.Popen[str]:
        """A replica of a service, which listens at this address only."""
        service = self.services[name]
        listen = [
            f"{key}={at.replace('0.0.0.0', address)}" for key, at in service.environment.items() if "0.0.0.0" in at
        ]
        self.running[f"{name} {address}"] = self.start(name, ["env", *listen, *service.argv])
        return self.running[f"{name} {address}"]

    def curl(self, *words: str) -> str:
        """What a server in here answers; nothing where it does not."""
        command = [*self._inside(), "curl", "--silent", "--max-time", "10", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def volume(self, source: str, user: str) -> Path:
        """A named volume: a folder that belongs to the user, as the mount points of the images do."""
        path = self.folder / source
        if not path.exists():
            path.mkdir()
            os.chown(path, *map(int, user.split(":")))
        return path

    def start(self, name: str, argv: list[str] | None = None) -> subprocess.Popen[str]:
        """The process that becomes the service's (or another in its place), with the service's pid."""
        service = self.services[name]
        root = Path(tempfile.mkdtemp(prefix="root-", dir=self.folder))
        user, group = service.user.split(":")
        script = "\n".join(["set -eu", *self._mounts(root, service)])
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        drop += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        words = ["chroot", str(root), *drop, "env", "-i", *self._environment(service), *(argv or service.argv)]
        command = [*self._inside(), "unshare", "--mount", "sh", "-c"]
        return subprocess.Popen(
            [*command, f"{script}\nexec {shlex.join(words)}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, argv: list[str] | None = None, timeout: float = 100) -> tuple[int, str, str]:
        """Exit status, standard output and errors of a service, or of another command in its place."""
        process = self.start(name, argv)
        try:
            out, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        return process.returncode, out, errors

    def up(self, name: str) -> subprocess.Popen[str]:
        """Starts a service as compose does: after those that it depends on are healthy, or have ended well."""
        for other, condition in self.services[name].depends_on.items():
            process = self.up(other)
            if condition == "service_healthy":
                self.wait_until_healthy(other)
            else:
                assert condition == "service_completed_successfully"
                errors = process.communicate(timeout=200)[1]
                assert process.returncode == 0, errors
        self.running[name] = self.start(name)
        return self.running[name]

    def wait_until_healthy(self, name: str) -> None:
        service, process = self.services[name], self.running[name]
        deadline = time.monotonic() + service.start_seconds
        while self.run(name, service.healthcheck)[0] != 0:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, f"{name} is not healthy in time"
            time.sleep(0.2)

    def _inside(self) -> list[str]:
        """Before a command: it runs in this network."""
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net"]

    def _name(self, local: Iterable[str]) -> None:
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()} {' '.join(local)}\n")

    def _environment(self, service: Service) -> list[str]:
        """The service's environment; PATH and PYTHONPATH lead to the tests' Python and to the sources."""
        programs = f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        known = service.environment | {"PATH": programs, "PYTHONPATH": "/src", "OMP_NUM_THREADS": "1"}
        return [f"{key}={value}" for key, value in known.items()]

    def _mounts(self, root: Path, service: Service) -> Iterator[str]:
        """Shell commands that build the root file system in a mount namespace of its own."""

        def bind(source: Path | str, target: str, options: str = "ro") -> Iterator[str]:
            place = shlex.quote(f"{root}{target}")
            make = f"mkdir -p {place}"
            if not Path(source).is_dir():
                make = f"mkdir -p {shlex.quote(str(Path(f'{root}{target}').parent))}; [ -e {place} ] || touch {place}"
            yield f"{make}; mount --bind {shlex.quote(str(source))} {place}; mount -o remount,bind,{options} {place}"

        yield f"mount -t tmpfs -o mode=755 root {shlex.quote(str(root))}"
        # First: the tests' Python may lie in one of them, as a checkout in /tmp has it.
        for text in service.plain["tmpfs"]:
            path, _, options = text.partition(":")
            yield f"mkdir -p {root}{path}; mount -t tmpfs -o mode=1777,{options} tmpfs {root}{path}"
        for path in dict.fromkeys((*SYSTEM, sys.base_prefix, sys.prefix, str(Path(sys.prefix).resolve()))):
            if Path(path).exists() and not Path(path).is_relative_to("/usr/"):
                yield from bind(Path(path).resolve(), path)
        for source in SOURCES:
            yield from bind(ROOT / source, f"/src/{source}")
        for file in ("hosts", "resolv.conf"):
            yield from bind(self.folder / file, f"/etc/{file}")
        for device in DEVICES:
            yield from bind(f"/dev/{device}", f"/dev/{device}", "rw")
        yield f"mkdir {root}/proc; mount --rbind /proc {root}/proc"
        for mount in service.mounts:
            source = self.volume(mount.source, service.user)
            yield from bind(source, mount.target, "ro" if mount.read_only else "rw")
        if service.plain["read_only"]:
            yield f"mount -o remount,ro {root}"
