"""The form of a bundle: a zip file whose bytes depend on its contents only, with checksums of all of them.

`manifest.json` tells name, size and SHA-256 of every file; `SHA256SUMS` the same for `sha256sum -c`.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainer.errors import BadInput

FORMAT: Final = "hoser-bundle-1"
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
MOST_FILES = 64
MOST_BYTES = 2_000_000_000  # all files together: no zip64, and a bound for who reads an archive of unknown origin
CHUNK = 1 << 20

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """What the manifest says of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Digest
    bytes: int = Field(ge=0, le=MOST_BYTES)


class Manifest(BaseModel):
    """What a bundle holds; `files` without the manifest itself and the sums."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["hoser-bundle-1"] = FORMAT
    model_digest: Digest
    data_fingerprint: str
    teacher: str  # "none", "uniform", "imported" or the teacher's digest
    files: dict[str, Part] = Field(max_length=MOST_FILES)

    def text(self) -> str:
        return json.dumps(self.model_dump(), indent=1) + "\n"

    def sums(self, own_digest: str) -> str:
        """For `sha256sum -c`; covers the manifest, whose digest is given, too."""
        files = {name: part.sha256 for name, part in self.files.items()} | {MANIFEST: own_digest}
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))


def entry(name: str) -> ZipInfo:
    """A plain file of 1980, readable by all."""
    info = ZipInfo(name)
    info.compress_type = ZIP_DEFLATED
    info.create_system = 3  # Unix: the mode counts
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


class Packer:
    """Writes files into an archive and remembers their sums."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self.files: dict[str, Part] = {}
        self._bytes = 0

    def add(self, name: str, chunks: Iterable[bytes]) -> Part:
        """One file, in pieces. Raises BadInput where a bundle would be too large."""
        total, size = hashlib.sha256(), 0
        with self._archive.open(entry(name), "w") as stream:
            for chunk in chunks:
                stream.write(chunk)
                total.update(chunk)
                size += len(chunk)
                self._bytes += len(chunk)
                if self._bytes > MOST_BYTES:
                    raise BadInput(f"{name}: a bundle holds at most {MOST_BYTES} bytes; generate fewer trips")
        self.files[name] = Part(sha256=total.hexdigest(), bytes=size)
        return self.files[name]


def chunks_of(file: Path) -> Iterable[bytes]:
    """A file's content in pieces."""
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
