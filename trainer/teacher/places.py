"""Where teachers listen: a name stands for all of its addresses, which come and go while one trains."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

UNRESOLVED = ("unix:", "local:")


@dataclass(frozen=True)
class Place:
    """One endpoint's address."""

    target: str  # HOST:PORT with a literal address, unix:PATH or local:FOLDER
    name: str | None = None  # HOST:PORT that led here, where HOST is a name: a certificate must bear it

    def __str__(self) -> str:
        return f"{self.name} ({self.target.rpartition(':')[0]})" if self.name else self.target


class Places:
    """The addresses behind some targets. A name that cannot be looked up keeps the addresses that it had."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = tuple(targets)
        self.names = tuple(target for target in targets if is_name(target))
        self.failure: str | None = None  # why the last look-up failed
        self._known: dict[str, list[Place]] = {}

    def now(self) -> list[Place]:
        """Looks all names up, in the order of the targets. It may block as long as the system's resolver does."""
        for target in self.targets:
            try:
                self._known[target] = look_up(target) if target in self.names else [Place(target)]
            except (OSError, UnicodeError) as error:
                self.failure = f"{target} has no address: {getattr(error, 'strerror', None) or error}"
        return list(dict.fromkeys(place for target in self.targets for place in self._known.get(target, ())))


def is_name(target: str) -> bool:
    """Whether HOST:PORT has to be looked up."""
    if target.startswith(UNRESOLVED):
        return False
    try:
        ipaddress.ip_address(target.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


def can_be_host(text: str) -> bool:
    """Whether a resolver takes it: a name has no empty or too long part."""
    try:
        return bool(text.encode("idna"))
    except UnicodeError:
        return False


def look_up(target: str) -> list[Place]:
    """All addresses of HOST:PORT, sorted. Raises OSError, and UnicodeError for what no host can be called."""
    host, _, port = target.rpartition(":")
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    addresses = sorted({str(address[4][0]) for address in found})
    return [Place(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", target) for address in addresses]
