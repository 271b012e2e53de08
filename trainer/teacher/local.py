"""A teacher of one's own: the same server, as a child process on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from trainer.errors import BadInput, TeacherUnavailable
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.grpc import GrpcEndpoint
from trainer.teacher.places import Place
from trainer.teacher.protocol import Answer, Description, Likelihoods, Query, TripQuery

START_S = 120.0
STOP_S = 20.0
# The environment's word to servers on a network; this one has a socket that only we can open.
MEANT_FOR_OTHERS = ("TEACHER_TOKEN_FILE", "TEACHER_TLS_CERT", "TEACHER_TLS_KEY", "TEACHER_TLS_CLIENT_CA")
USERS_MISTAKE = 2  # exit status of a server that cannot serve what it was given


class LocalEndpoint:
    """Starts `teacher serve FOLDER` and talks to it, and starts it again when it has died.

    The server ends when this object or its process does.
    """

    def __init__(self, artifact: Path, server_flags: tuple[str, ...] = ()) -> None:
        """Waits until the server listens. Raises BadInput or TeacherUnavailable."""
        if not artifact.is_dir():
            raise BadInput(f"{artifact}: no such folder; name a teacher artifact (see `teacher export`)")
        self._artifact, self._flags = artifact, server_flags
        self._lock, self._closed = threading.Lock(), False
        try:
            with contextlib.ExitStack() as undo:
                # A short name: socket paths have a limit of 107 bytes.
                self._folder = tempfile.TemporaryDirectory(prefix="teacher-")
                undo.callback(self._folder.cleanup)
                self._socket = f"unix:{self._folder.name}/grpc.sock"
                self._log = Path(self._folder.name) / "log"
                self._process = self._start()
                undo.callback(self._end_process)
                self._wait_for_socket()
                self._wire = GrpcEndpoint(Place(self._socket))
                undo.pop_all()
        except OSError as error:
            raise TeacherUnavailable(f"the local teacher did not start: {error}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def describe(self, timeout: float, digest: str = "") -> Description:
        """As every endpoint's; a server that has died is started again, and answers a later call."""
        with self._lock:
            if not self._closed and self._process.poll() is not None:
                raise EndpointError(Trouble.LOST, self._started_again())
        return self._wire.describe(timeout, digest)

    def score(self, query: Query, timeout: float) -> Answer:
        with self._told_of_its_end():
            return self._wire.score(query, timeout)

    def likelihood(self, query: TripQuery, timeout: float) -> Likelihoods:
        with self._told_of_its_end():
            return self._wire.likelihood(query, timeout)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._wire.close()
        self._stop()

    @contextlib.contextmanager
    def _told_of_its_end(self) -> Iterator[None]:
        """Of a server that has died during a call, what it said last."""
        try:
            yield
        except EndpointError as error:
            if error.trouble is Trouble.LOST and self._process.poll() is not None:
                raise EndpointError(Trouble.LOST, self._obituary()) from None
            raise

    def _started_again(self) -> str:
        """What the server died of, and what keeps it from starting, if anything does."""
        words = self._obituary()
        self._end_process()
        try:
            self._process = self._start()
        except OSError as error:
            words += f"; it cannot be started again: {error}"
        return words

    def _start(self) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        command = [sys.executable, "-m", "teacher_server", "serve", str(self._artifact)]
        command += ["--grpc-address", self._socket, "--http-address", "none", "--until-stdin-closes", *self._flags]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the server that we are gone
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in MEANT_FOR_OTHERS} | _own_gpu(),
                start_new_session=True,  # Ctrl-C is for the trainer, which still needs its teacher to save cleanly
            )

    def _wait_for_socket(self) -> None:
        deadline = time.monotonic() + START_S
        with grpc.insecure_channel(self._socket) as channel:
            ready = grpc.channel_ready_future(channel)
            while True:
                with contextlib.suppress(grpc.FutureTimeoutError):
                    ready.result(timeout=0.2)
                    return
                if (status := self._process.poll()) is not None:
                    words = f"the local teacher did not start (status {status}): {self._last_words()}"
                    raise BadInput(words) if status == USERS_MISTAKE else TeacherUnavailable(words)
                if time.monotonic() > deadline:
                    raise TeacherUnavailable(f"the local teacher did not start within {START_S:.0f} s")

    def _obituary(self) -> str:
        return f"the local teacher died with status {self._process.poll()}: {self._last_words()}"

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError as error:
            return f"its log cannot be read: {error}"
        return lines[-1] if lines else "it said nothing"

    def _stop(self) -> None:
        self._end_process()
        self._folder.cleanup()

    def _end_process(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _own_gpu() -> dict[str, str]:
    """Of the environment: under `torchrun` every rank's teacher sees that rank's GPU alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    rank, visible = os.environ["LOCAL_RANK"], os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else []
    return {"CUDA_VISIBLE_DEVICES": names[int(rank)] if int(rank) < len(names) else rank}
