"""The network's name server: a real one, dnsmasq, whose answers change."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Names:
    """Which addresses some names have. Their time to live is 0: whoever asks again gets the newest ones."""

    def __init__(
        self, popen: Callable[..., subprocess.Popen[str]], folder: Path, addresses: Mapping[str, Sequence[str]]
    ) -> None:
        """`popen` runs a command where the server is to be."""
        self._popen, self._file, self._known = popen, folder / "names", dict(addresses)
        self.start()

    def start(self) -> None:
        self._write()
        words = ["dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--pid-file"]
        words += ["--no-resolv", "--no-hosts", f"--addn-hosts={self._file}", "--local=/test/", "--log-facility=-"]
        self._process = self._popen(*words, stderr=subprocess.DEVNULL)

    def lead(self, name: str, *addresses: str) -> None:
        """From now on, or from the next start on."""
        self._known[name] = addresses
        self._write()
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _write(self) -> None:
        lines = (f"{address} {name}\n" for name, addresses in self._known.items() for address in addresses)
        self._file.write_text("".join(lines))
