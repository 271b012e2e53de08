"""Hosts as network namespaces: each has one cable to a common switch, and no other way out.

It needs root and Debian's util-linux and iproute2. Nothing is made outside of the namespaces, which end with the
processes that hold them, and these with whoever started them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

PREFIX = "198.18.0"  # of RFC 2544: for tests of networks, and nobody's
DIES_WITH_US = ("setpriv", "--pdeathsig=KILL")


def inside(pid: int) -> list[str]:
    """Words that run a command, as the same process, in another one's network and file systems."""
    return [*DIES_WITH_US, "nsenter", f"--target={pid}", "--net", "--mount", f"--wd={Path.cwd()}", "--"]


class Namespace:
    """A network of its own, held by a process that sleeps."""

    def __init__(self, prepare: str = "true") -> None:
        """`prepare`: shell commands that run in it first."""
        script = f"ip link set lo up && {prepare} && echo up && exec sleep 3600"
        command = [*DIES_WITH_US, "unshare", "--net", "--mount", "sh", "-ec", script]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "up\n", "no network namespace could be made"
        self.pid = self._holder.pid
        self.within = inside(self.pid)

    def popen(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([*self.within, *words], text=True, **how)

    def run(self, *words: str) -> str:
        """Standard output of a command; raises CalledProcessError."""
        return subprocess.run([*self.within, *words], check=True, text=True, stdout=subprocess.PIPE, timeout=60).stdout

    def sh(self, script: str) -> None:
        """Shell commands that must go well."""
        self.run("sh", "-ec", script)

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


class Host(Namespace):
    """`eth0` with an address, and the network's name server in `/etc/resolv.conf`."""

    def __init__(self, name: str, address: str, switch: Namespace, resolver: Path) -> None:
        super().__init__(f"mount --bind {resolver} /etc/resolv.conf")
        self.name, self.address, self._switch, self._port = name, address, switch, f"to-{name}"
        switch.sh(f"ip link add {self._port} type veth peer name eth0 netns {self.pid}")
        self.sh(f"ip address add {address}/24 dev eth0; ip link set eth0 up")
        self._plug("switch")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._switch.sh(f"ip link set {self._port} down")

    def heal(self) -> None:
        self._switch.sh(f"ip link set {self._port} up")

    @contextmanager
    def slow(self, delay_s: float, loss: float) -> Iterator[None]:
        """A long, bad cable for the time of a `with`: see `cable`."""
        bridge, near, far = (f"{end}-{self.name}" for end in ("br", "near", "far"))
        words = (sys.executable, "-m", "bench.hosts.cable", near, far, str(delay_s), str(loss))
        with ExitStack() as stack:
            self._switch.sh(f"ip link add {bridge} type bridge forward_delay 0; ip link set {bridge} up")
            stack.callback(self._switch.sh, f"ip link delete {bridge}")
            for tap, end in ((near, bridge), (far, "switch")):
                self._switch.sh(f"ip tuntap add dev {tap} mode tap; ip link set {tap} master {end} up")
                stack.callback(self._switch.sh, f"ip link delete {tap}")
            cable = self._switch.popen(*words, stdout=subprocess.PIPE)
            stack.callback(cable.communicate)
            stack.callback(cable.kill)
            assert cable.stdout
            assert cable.stdout.readline() == "plugged in\n"
            self._plug(bridge)
            stack.callback(self._plug, "switch")
            yield

    def _plug(self, bridge: str) -> None:
        self._switch.sh(f"ip link set {self._port} master {bridge} up")


class Network:
    """A switch and the hosts on it. Use it in a `with`."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        """The first host is the name server's."""
        self._folder, self._names = folder, hosts
        self.hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        resolver = self._folder / "resolv.conf"
        resolver.write_text(f"nameserver {PREFIX}.1\noptions timeout:1 attempts:2\n")
        with ExitStack() as stack:
            bridge = "ip link add switch type bridge forward_delay 0 && ip link set switch up"
            switch = Namespace(bridge)
            stack.callback(switch.close)
            for number, name in enumerate(self._names, 1):
                self.hosts[name] = Host(name, f"{PREFIX}.{number}", switch, resolver)
                stack.callback(self.hosts[name].close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


def why_not() -> str | None:
    """What is missing to make hosts of network namespaces; None where nothing is."""
    if os.geteuid() != 0:
        return "it needs root, to make network namespaces"
    for words in (("unshare", "--net", "--mount", "ip", "link"), ("dnsmasq", "--version"), ("haproxy", "-v")):
        if reason := _fails(words):
            return reason
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun, of which a slow cable is made"
    return None


def _fails(words: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"there is no {words[0]} (make debian installs it)"
    return f"{' '.join(words)}: {done.stderr.strip()}" if done.returncode else None
