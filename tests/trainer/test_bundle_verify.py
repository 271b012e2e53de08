"""Archives that are damaged or hostile: each is refused in one line that names what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import pytest

from trainer.bundle import verify as verifying
from trainer.bundle.archive import entry
from trainer.bundle.pack import write_bundle
from trainer.bundle.parts import BEST, NEEDED, Parts
from trainer.bundle.verify import verify
from trainer.errors import BadInput
from trainer.student.card import StudentCard

Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few small files; what they say is not for `verify` to judge."""
    root = tmp_path_factory.mktemp("small")
    (root / "checkpoints").mkdir()
    for name in (*NEEDED, "metrics.jsonl"):
        (root / name).write_text(f"what {name} holds\n" * 3)
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in (*NEEDED, "metrics.jsonl")}
    origin = {"data_fingerprint": "d" * 64, "teacher": "none", "config": {}}
    parts = Parts(root, digests, StudentCard({}, "d" * 64, None, 0.0, 1.0, 1), 9, origin, {})
    write_bundle(root / "good.zip", parts, None)
    return root / "good.zip"


def contents(file: Path) -> Contents:
    with ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(file: Path, files: Contents, entry_of: Callable[[str], ZipInfo] = entry) -> Path:
    with ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(entry_of(name), content)
    return file


def resealed(files: Contents) -> Contents:
    """With a manifest and sums that say what the files are."""
    plain = {name: content for name, content in files.items() if name not in ("manifest.json", "SHA256SUMS")}
    manifest = json.loads(files["manifest.json"])
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in plain.items()}
    manifest["files"] = {name: {"sha256": digests[name], "bytes": len(plain[name])} for name in plain}
    text = json.dumps(manifest).encode()
    digests["manifest.json"] = hashlib.sha256(text).hexdigest()
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
    return plain | {"manifest.json": text, "SHA256SUMS": sums}


def refusal(file: Path, *words: str) -> str:
    with pytest.raises(BadInput) as caught:
        verify(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def test_good_ones_pass(good: Path, tmp_path: Path) -> None:
    """The control, also for how this file makes bad ones."""
    assert set(verify(good).files) == {*NEEDED, "metrics.jsonl", "MODEL_CARD.md"}
    assert pack(tmp_path / "same.zip", contents(good)).read_bytes() == good.read_bytes()
    verify(pack(tmp_path / "sealed.zip", resealed(contents(good))))


def test_every_byte_counts(good: Path, tmp_path: Path) -> None:
    """A changed byte is found, or (a code of the compression that means the same) changes nothing of any file."""
    whole, file, files = good.read_bytes(), tmp_path / "flipped.zip", contents(good)
    unseen = 0
    for position in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[position] ^= 0xFF
        file.write_bytes(spoilt)
        try:
            verify(file)
        except BadInput:
            continue
        unseen += 1
        assert contents(file) == files
    assert unseen < 0.01 * len(whole)


def test_nothing_may_be_cut_off_or_added(good: Path, tmp_path: Path) -> None:
    whole, file = good.read_bytes(), tmp_path / "cut.zip"
    for length in (*range(0, len(whole), 7), len(whole) - 1):
        file.write_bytes(whole[:length])
        refusal(file)
    for longer in (b"x" + whole, whole + b"x", whole + whole):
        file.write_bytes(longer)
        refusal(file)


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "\\evil", "..\\evil", "C:evil", "C:\\evil", "a/.."]
)
def test_names_that_lead_elsewhere(name: str, good: Path, tmp_path: Path) -> None:
    files = resealed(contents(good) | {name: b"x"})
    refusal(pack(tmp_path / "bad.zip", files), repr(name), "leads out of the folder")


@pytest.mark.parametrize("name", ["./a", "a//b", "a/", "a b", ".hidden", "-rf", "a\nb", "ä", "x" * 201, "a/./b"])
def test_names_that_no_bundle_has(name: str, good: Path, tmp_path: Path) -> None:
    refusal(pack(tmp_path / "bad.zip", resealed(contents(good) | {name: b"x"})), "not a name that a bundle can have")


def test_links(good: Path, tmp_path: Path) -> None:
    def link(name: str) -> ZipInfo:
        info = entry(name)
        if name == "report.html":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return info

    files = resealed(contents(good) | {"report.html": b"/etc/passwd"})
    refusal(pack(tmp_path / "bad.zip", files, link), "'report.html': is a symbolic link")


def test_other_forms(good: Path, tmp_path: Path) -> None:
    def stored(name: str) -> ZipInfo:
        info = entry(name)
        info.compress_type = ZIP_STORED
        return info

    refusal(pack(tmp_path / "bad.zip", contents(good), stored), "MODEL_CARD.md: damaged, or not as a bundle has it")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twin", ["config.yaml", "CONFIG.yaml"])
def test_twins(twin: str, good: Path, tmp_path: Path) -> None:
    file = pack(tmp_path / "bad.zip", contents(good))
    with ZipFile(file, "a") as archive:
        archive.writestr(entry(twin), b"another")
    refusal(file, f"{twin}: stands twice in the archive")


def test_files_against_the_manifest(good: Path, tmp_path: Path) -> None:
    files, bad = contents(good), tmp_path / "bad.zip"
    refusal(pack(bad, files | {"notes.txt": b"x"}), "notes.txt: extra: the manifest does not list it")
    less = {name: content for name, content in files.items() if name != "config.yaml"}
    refusal(pack(bad, less), "config.yaml: missing")
    swapped = files["config.yaml"].replace(b"what", b"WHAT")
    refusal(pack(bad, files | {"config.yaml": swapped}), "config.yaml: changed (SHA-256 ")
    refusal(pack(bad, files | {"config.yaml": b"x"}), "config.yaml: has 1 bytes, the manifest says 69")
    refusal(pack(bad, files | {"SHA256SUMS": b"0"}), "SHA256SUMS: does not agree with manifest.json")
    for name in ("SHA256SUMS", "manifest.json"):
        refusal(pack(bad, {n: c for n, c in files.items() if n != name}), f"{name}: missing; not a bundle?")
    refusal(pack(bad, resealed(files | {BEST: b"another"})), "model_digest is not that of checkpoints/best.safetensors")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"", "manifest.json: it: Invalid JSON"),
        (b"[" * 100_000, "manifest.json: it: Invalid JSON"),
        (b"{}", "manifest.json: model_digest: Field required"),
        (b'{"format": "hoser-bundle-9"}', "manifest.json: format: Input should be 'hoser-bundle-1'"),
        (b"\xff\xfe", "manifest.json: it: Invalid JSON"),
    ],
)
def test_manifests(manifest: bytes, said: str, good: Path, tmp_path: Path) -> None:
    refusal(pack(tmp_path / "bad.zip", contents(good) | {"manifest.json": manifest}), said)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    for content in (b"", b"PK", b"\x00" * 5000, b"PK\x05\x06"):
        (tmp_path / "bad.zip").write_bytes(content)
        refusal(tmp_path / "bad.zip", "not a bundle, or cut off")
    refusal(pack(tmp_path / "bad.zip", {"a.txt": b"hello"}), "manifest.json: missing; not a bundle?")
    refusal(tmp_path / "none.zip", "cannot be read (No such file or directory)")
    refusal(tmp_path, "cannot be read (Is a directory)")


def test_many_files_are_not_even_listed(good: Path, tmp_path: Path) -> None:
    refusal(pack(tmp_path / "bad.zip", {f"f{i}": b"" for i in range(65)}), "too many files for a bundle (65 or more")
    whole, locator = good.read_bytes(), b"PK\x06\x07" + bytes(16)  # of the second record that larger archives have
    (tmp_path / "bad.zip").write_bytes(whole[:-22] + locator + whole[-22:])
    refusal(tmp_path / "bad.zip", "too many files for a bundle")


def test_bombs(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are bounded by what the entries say, before anything is read."""
    monkeypatch.setattr(verifying, "_chunks", lambda *_: pytest.fail("read"))
    files = contents(good)
    refusal(pack(tmp_path / "bad.zip", files | {"manifest.json": bytes(2 << 20)}), "manifest.json: 2097152 bytes, at")
    monkeypatch.setattr(verifying, "MOST_BYTES", 5 << 20)
    bomb = pack(tmp_path / "bomb.zip", resealed(files | {"generated.csv": bytes(6 << 20)}))
    assert bomb.stat().st_size < 20_000
    refusal(bomb, "would unpack to 62", "a bundle has at most 5242880")


def test_a_size_that_lies(good: Path, tmp_path: Path) -> None:
    """Both headers and the manifest say ten bytes; the compressed stream has five million."""
    files = resealed(contents(good) | {"generated.csv": b"0" * 10})
    file = pack(tmp_path / "bomb.zip", files | {"generated.csv": b"0" * 5_000_000})
    honest = struct.pack("<L", 5_000_000)
    content = file.read_bytes()
    assert content.count(honest) == 2
    file.write_bytes(content.replace(honest, struct.pack("<L", 10)))
    refusal(file, "generated.csv: Bad CRC-32")


@pytest.mark.parametrize("size", [3_000_000_000, 0xFFFFFFFF])
def test_a_size_beyond_all_bounds(size: int, good: Path, tmp_path: Path) -> None:
    file = pack(tmp_path / "bomb.zip", resealed(contents(good) | {"generated.csv": b"0" * 5_000_000}))
    file.write_bytes(file.read_bytes().replace(struct.pack("<L", 5_000_000), struct.pack("<L", size)))
    refusal(file, f"would unpack to {str(size)[:4]}")


def test_overlapping_files(good: Path, tmp_path: Path) -> None:
    """Two directory entries that point at one place."""
    stream = io.BytesIO(good.read_bytes())
    with ZipFile(stream, "a") as archive:
        archive.infolist()[1].header_offset = archive.infolist()[0].header_offset
        archive.comment = b"x"  # makes it write the directory anew
        archive.comment = b""
    (tmp_path / "bad.zip").write_bytes(stream.getvalue())
    refusal(tmp_path / "bad.zip", "not as a bundle has it")
