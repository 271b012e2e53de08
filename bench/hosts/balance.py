"""Three equal teachers under saturation, asked by two clients at a time: one looks their name up, one goes through
HAProxy with the configuration in `deploy/proxy`. TLS everywhere, and connections that age.

Each client must give each teacher its share, find a new one, and lose no request of one that stops.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.hosts.names import Names
from bench.hosts.network import Host, Network
from bench.reliability.scenario import Findings, small_teacher
from tests.certificates import Authority, PemFiles
from tests.integration.mortal import Mortal

TEACHERS, PROXY = "teachers.test", "proxy.test"
HOSTS = ("names", "teacher-1", "teacher-2", "teacher-3", "proxy", "client-1", "client-2")
CONFIGURATION = Path("deploy/proxy/haproxy.cfg")
CALLERS = 12  # of each client
MEASURED_S = 5.0
NEW_S, SHARE_OFF = 15.0, 0.1  # what is promised: until a new one is asked; how far from a third, of a third
PACE_S = 0.1  # a batch takes that long: three teachers on two cores are equal only if cores do not decide
AGE_S = 3.0  # of connections
SEEN_S = 2.5  # until HAProxy has seen by itself that a teacher stops; then its name goes, too
DRAIN_S = 9.0  # longer than both: names are kept for 5 s


class Client:
    """A loaded client on a host of its own, and how many requests each teacher has had of it."""

    def __init__(self, host: Host, address: str, ca: Path, asked: Callable[[dict[str, Any]], dict[str, int]]) -> None:
        words = (sys.executable, "-m", "bench.hosts.load", address, str(CALLERS))
        env = {**os.environ, "TRAINER_TEACHER_CA": str(ca), "OMP_NUM_THREADS": "1"}
        self._process = host.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._asked = asked

    def tell(self) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def asked(self) -> dict[str, int]:
        """Requests so far by teacher, of those that were asked at all."""
        return {name: count for name, count in self._asked(self.tell()).items() if count}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def balance(folder: Path, found: Findings) -> None:
    """For each client: shares of the three teachers, seconds until a new one was asked, failures."""
    folder = folder / "balance"
    folder.mkdir()
    small_teacher(folder / "teacher")
    authority = Authority()
    with ExitStack() as stack:
        network = stack.enter_context(Network(folder, *HOSTS))
        names_host, *rest = (network[name] for name in HOSTS)
        hosts, proxy, clients = rest[:3], rest[3], rest[4:]
        addresses = [host.address for host in hosts]
        names = Names(names_host.popen, folder, {TEACHERS: addresses[:2], PROXY: [proxy.address]})
        stack.callback(names.stop)
        teachers = [stack.enter_context(_teacher(host, folder, authority)) for host in hosts]
        for teacher in teachers:
            teacher.ready()
        files = authority.issue(folder / "proxy", PROXY)
        stack.enter_context(_haproxy(proxy, files))
        doors = {
            "names": Client(clients[0], f"grpcs://{TEACHERS}:8001", files.ca, _by_endpoint),
            "haproxy": Client(
                clients[1], f"grpcs://{PROXY}:8443", files.ca, lambda _: _of_servers(proxy, "sessions_total")
            ),
        }
        for client in doors.values():
            stack.callback(client.close)
        _measured(doors, names, addresses, teachers, found)
        seen = sum(_of_servers(proxy, "check_failures_total").values())
        found.promise(seen > 0, "HAProxy did not see that a teacher stops, only that its address was gone")


def _measured(
    doors: dict[str, Client], names: Names, addresses: list[str], teachers: list[Mortal], found: Findings
) -> None:
    _asked_of(2, doors)
    names.lead(TEACHERS, *addresses)
    new_s = _asked_of(3, doors)
    time.sleep(1)
    before = {door: client.asked() for door, client in doors.items()}
    time.sleep(MEASURED_S)
    shares = {door: _shares(before[door], client.asked()) for door, client in doors.items()}
    leaves = threading.Timer(SEEN_S, names.lead, [TEACHERS, *addresses[1:]])
    leaves.start()
    teachers[0].stop()
    leaves.join()
    time.sleep(1)
    for door, client in doors.items():
        told = client.tell()
        failures = sum(endpoint["failures"] for endpoint in told["endpoints"].values())
        found.figures[f"balance, {door}"] = {
            "new_teacher_asked_after_s": round(new_s[door], 1),
            "shares": shares[door],
            "answers": told["answers"],
            "failures": failures,
            "lost": len(told["lost"]),
        }
        off = max(abs(3 * share - 1) for share in shares[door])
        found.promise(new_s[door] < NEW_S, f"{door}: a new teacher was asked after {new_s[door]:.1f} s")
        found.promise(len(shares[door]) == 3 and off < SHARE_OFF, f"{door}: shares {shares[door]}")
        found.promise(not told["lost"] and not failures, f"{door}: {failures} failures, lost: {told['lost'][:3]}")


def _asked_of(count: int, doors: dict[str, Client]) -> dict[str, float]:
    """After how many seconds each client had asked so many teachers."""
    begun, came = time.monotonic(), dict[str, float]()
    while len(came) < len(doors):
        for door, client in doors.items():
            if door not in came and len(client.asked()) == count:
                came[door] = time.monotonic() - begun
        assert time.monotonic() < begun + 2 * NEW_S, f"only {list(came)} asked {count} teachers"
        time.sleep(0.1)
    return came


def _shares(before: dict[str, int], after: dict[str, int]) -> list[float]:
    counts = [after[name] - before.get(name, 0) for name in sorted(after)]
    return [round(count / sum(counts), 3) for count in counts]


def _by_endpoint(told: dict[str, Any]) -> dict[str, int]:
    return {name: counts["calls"] for name, counts in told["endpoints"].items()}


def _of_servers(proxy: Host, metric: str) -> dict[str, int]:
    """What HAProxy's own metrics say of each teacher."""
    text = proxy.run("curl", "-s", "-m", "5", "http://127.0.0.1:8404/metrics")
    found = re.findall(rf'haproxy_server_{metric}\{{proxy="teachers",server="(\w+)"\}} (\d+)', text)
    return {name: int(count) for name, count in found}


@contextmanager
def _teacher(host: Host, folder: Path, authority: Authority) -> Iterator[Mortal]:
    files = authority.issue(folder / host.name, TEACHERS)
    flags = [
        "--tls-cert",
        str(files.certificate),
        "--tls-key",
        str(files.key),
        "--http-address",
        f"{host.address}:8000",
    ]
    flags += ["--max-queue-delay", str(PACE_S), "--max-connection-age", str(AGE_S), "--drain-delay", str(DRAIN_S)]
    flags += ["--log-level", "error"]
    teacher = Mortal(folder / "teacher", f"{host.address}:8001", flags, host.within)
    try:
        yield teacher
    finally:
        teacher.kill()


@contextmanager
def _haproxy(host: Host, files: PemFiles) -> Iterator[None]:
    both = files.key.with_name("both.pem")
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    env = {**os.environ, "TEACHERS": TEACHERS, "TLS_PEM": str(both), "TEACHERS_CA": str(files.ca)}
    words = ("haproxy", "-db", "-q", "-f", str(CONFIGURATION.resolve()))
    process = host.popen(*words, env=env, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()
