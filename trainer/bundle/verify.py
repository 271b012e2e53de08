"""Whether a bundle is whole. The archive may come from anybody: nothing is unpacked, sizes are bounded first."""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, LargeZipFile, ZipFile, ZipInfo

from pydantic import ValidationError

from trainer.bundle.archive import CHUNK, MANIFEST, MOST_BYTES, MOST_FILES, SUMS, Manifest, entry
from trainer.bundle.parts import BEST
from trainer.errors import BadInput

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
LONGEST_NAME = 200
MOST_TEXT = 1 << 20  # of the manifest, and of the sums
END = struct.Struct("<4s4H2LH")  # the record that ends a zip file
LOCATOR = b"PK\x06\x07"  # before it: there is a second, larger record
# What zipfile raises at archives that nobody's zipfile has written.
UNREADABLE = (
    BadZipFile,
    LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
)
LOCATOR_SIZE, RECORD_SIZE = 20, 46


def verify(file: Path) -> Manifest:
    """Checks every byte of every file against the manifest. Raises BadInput naming what is wrong."""
    try:
        with file.open("rb") as stream:
            _check_end(file, stream)
            with ZipFile(stream) as archive:
                infos = _entries(file, archive, stream)
                return _check_contents(file, archive, infos)
    except UNREADABLE as error:
        raise BadInput(f"{file}: damaged ({str(error)[:120]})") from None
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror or error})") from None


def _check_end(file: Path, stream: BinaryIO) -> None:
    """The archive's end, before anything is believed of it: it bounds what listing the archive takes."""
    size = stream.seek(0, 2)
    if size > MOST_BYTES + MOST_FILES * CHUNK:
        raise BadInput(f"{file}: {size} bytes; a bundle has at most {MOST_BYTES}")
    stream.seek(max(size - END.size - LOCATOR_SIZE, 0))
    tail = stream.read()
    if len(tail) < END.size or not tail[-END.size :].startswith(b"PK\x05\x06"):
        raise BadInput(f"{file}: not a bundle, or cut off (no end of a zip file)")
    _, disk, first_disk, here, entries, length, start, comment = END.unpack(tail[-END.size :])
    if tail.startswith(LOCATOR) or entries > MOST_FILES:
        raise BadInput(f"{file}: too many files for a bundle ({entries} or more, at most {MOST_FILES})")
    most = MOST_FILES * (RECORD_SIZE + LONGEST_NAME)
    if (disk, first_disk, here, comment) != (0, 0, entries, 0) or length > most or start + length + END.size != size:
        raise BadInput(f"{file}: damaged, cut off, or with something before or after the archive")


def _entries(file: Path, archive: ZipFile, stream: BinaryIO) -> dict[str, ZipInfo]:
    """The archive's files by name, in order. Raises BadInput for any that a bundle cannot have."""
    if (total := sum(info.file_size for info in archive.infolist())) > MOST_BYTES:
        raise BadInput(f"{file}: would unpack to {total} bytes; a bundle has at most {MOST_BYTES}")
    infos: dict[str, ZipInfo] = {}
    position = 0
    for info in archive.infolist():
        name = info.orig_filename
        _check_name(file, info)
        if name.lower() in {known.lower() for known in infos}:
            raise BadInput(f"{file}: {name}: stands twice in the archive")
        stream.seek(position)
        header = _header(info)
        if info.header_offset != position or stream.read(len(header)) != header:
            raise BadInput(f"{file}: {name}: damaged, or not as a bundle has it (form, time, what stands before it)")
        position += len(header) + info.compress_size
        infos[name] = info
    stream.seek(position)
    directory = b"".join(map(_record, infos.values()))
    if archive.start_dir != position or stream.read()[: -END.size] != directory:
        raise BadInput(f"{file}: its directory is damaged, or not as a bundle has it (attributes, comments)")
    return infos


def _header(info: ZipInfo) -> bytes:
    """What stands before a file of this name, sum and sizes in a bundle."""
    own = entry(info.orig_filename)
    own.CRC, own.compress_size, own.file_size = info.CRC, info.compress_size, info.file_size
    return own.FileHeader(zip64=False)


def _record(info: ZipInfo) -> bytes:
    """The file's record in the directory."""
    own, name = entry(info.orig_filename), info.orig_filename.encode()
    times = _header(info)[10:14]
    sizes = struct.pack("<3L2H", info.CRC, info.compress_size, info.file_size, len(name), 0)
    head = struct.pack("<4s4B2H", b"PK\x01\x02", 20, own.create_system, 20, 0, 0, own.compress_type)
    return head + times + sizes + struct.pack("<3H2L", 0, 0, 0, own.external_attr, info.header_offset) + name


def _check_name(file: Path, info: ZipInfo) -> None:
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise BadInput(f"{file}: {name!r}: is a symbolic link")
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
        raise BadInput(f"{file}: {name!r}: leads out of the folder that the archive is unpacked to")
    if len(name) > LONGEST_NAME or not PLAIN_NAME.fullmatch(name):
        raise BadInput(f"{file}: {name[:80]!r}: not a name that a bundle can have")


def _check_contents(file: Path, archive: ZipFile, infos: dict[str, ZipInfo]) -> Manifest:
    texts = {name: _text(file, archive, infos, name) for name in (MANIFEST, SUMS)}
    try:
        manifest = Manifest.model_validate_json(texts[MANIFEST])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise BadInput(f"{file}: {MANIFEST}: {where}: {first['msg']}") from None
    listed, there = set(manifest.files), set(infos) - {MANIFEST, SUMS}
    for name in sorted(listed ^ there):
        raise BadInput(f"{file}: {name}: {'missing' if name in listed else 'extra: the manifest does not list it'}")
    if texts[SUMS] != manifest.sums(hashlib.sha256(texts[MANIFEST]).hexdigest()).encode():
        raise BadInput(f"{file}: {SUMS}: does not agree with {MANIFEST}")
    for name, part in manifest.files.items():
        if infos[name].file_size != part.bytes:
            raise BadInput(f"{file}: {name}: has {infos[name].file_size} bytes, the manifest says {part.bytes}")
        total = hashlib.sha256()
        for chunk in _chunks(archive, infos[name]):
            total.update(chunk)
        if total.hexdigest() != part.sha256:
            raise BadInput(f"{file}: {name}: changed (SHA-256 {total.hexdigest()[:16]}, not {part.sha256[:16]})")
    if BEST not in listed or manifest.files[BEST].sha256 != manifest.model_digest:
        raise BadInput(f"{file}: {MANIFEST}: model_digest is not that of {BEST}")
    return manifest


def _text(file: Path, archive: ZipFile, infos: dict[str, ZipInfo], name: str) -> bytes:
    if name not in infos:
        raise BadInput(f"{file}: {name}: missing; not a bundle?")
    if infos[name].file_size > MOST_TEXT:
        raise BadInput(f"{file}: {name}: {infos[name].file_size} bytes, at most {MOST_TEXT}")
    return b"".join(_chunks(archive, infos[name]))


def _chunks(archive: ZipFile, info: ZipInfo) -> Iterator[bytes]:
    """What a file holds, in pieces, never more than its entry says. Raises zipfile's errors."""
    try:
        with archive.open(info) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except (BadZipFile, zlib.error, EOFError) as error:
        raise BadZipFile(f"{info.filename}: {error}") from None
