"""A teacher of one's own: the same server, as a child process on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc

from trainer.errors import BadInput, TeacherUnavailable
from trainer.teacher.grpc import GrpcTeacher
from trainer.teacher.protocol import Answer, Description, Query

START_S = 120.0
STOP_S = 20.0
# The environment's word to servers on a network; this one has a socket that only we can open.
MEANT_FOR_OTHERS = ("TEACHER_TOKEN_FILE", "TEACHER_TLS_CERT", "TEACHER_TLS_KEY", "TEACHER_TLS_CLIENT_CA")
USERS_MISTAKE = 2  # exit status of a server that cannot serve what it was given


class LocalTeacher:
    """Starts `teacher serve FOLDER` and talks to it; the server ends when this object or its process does."""

    def __init__(self, artifact: Path, *, deadline_s: float = 120.0, server_flags: tuple[str, ...] = ()) -> None:
        if not artifact.is_dir():
            raise BadInput(f"{artifact}: no such folder; name a teacher artifact (see `teacher export`)")
        self._folder = tempfile.TemporaryDirectory(prefix="teacher-")  # short: socket paths have a limit of 107 bytes
        socket = f"unix:{self._folder.name}/grpc.sock"
        self._log = Path(self._folder.name) / "log"
        self._process = self._start(artifact, socket, server_flags)
        try:
            self._wait_for_socket(socket)
            self._teacher = GrpcTeacher([socket], deadline_s=deadline_s)
        except BaseException:
            self._stop()
            raise

    @property
    def description(self) -> Description:
        return self._teacher.description

    @property
    def pid(self) -> int:
        return self._process.pid

    def score(self, query: Query) -> Answer:
        try:
            return self._teacher.score(query)
        except TeacherUnavailable as error:
            status = self._process.poll()
            if status is None:
                raise
            raise TeacherUnavailable(f"the local teacher died with status {status}: {self._last_words()}") from error

    def close(self) -> None:
        self._teacher.close()
        self._stop()

    def _start(self, artifact: Path, socket: str, flags: tuple[str, ...]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "teacher_server", "serve", str(artifact)]
        command += ["--grpc-address", socket, "--http-address", "none", "--until-stdin-closes", *flags]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the server that we are gone
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in MEANT_FOR_OTHERS},
                start_new_session=True,  # Ctrl-C is for the trainer, which still needs its teacher to save cleanly
            )

    def _wait_for_socket(self, socket: str) -> None:
        deadline = time.monotonic() + START_S
        with grpc.insecure_channel(socket) as channel:
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

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _stop(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
