"""Hostile, crafted and damaged checkpoints are refused in one line, and nothing that they name is run.

Each gadget would make a marker file if anything in the checkpoint were executed.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.teacher_server.foreign_files import original_form, refused, seed_form, weights


class Gadget:
    """Pickles as a call of `function` with `arguments`, with an optional state."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class GadgetDict(dict[str, Any]):
    """A dict by look, a call by pickle."""

    def __reduce__(self) -> Any:
        return os.system, (self["command"],)


def gadgets(marker: Path) -> dict[str, Any]:
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Gadget(os.system, command),
        "eval": Gadget(eval, code),
        "exec": Gadget(exec, code),
        "open": Gadget(open, str(marker), "w"),
        "popen": Gadget(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Gadget(getattr, Gadget(__import__, "os"), "system"),
        "subclass": GadgetDict(command=command),
        "torch function": Gadget(torch.load, str(marker)),
        "torch import": Gadget(torch.hub.load, str(marker), "x"),
        "partial": Gadget(__import__("functools").partial, os.system, command),
    }


NAMES = sorted(gadgets(Path("x")))


@pytest.mark.parametrize("form", ["original", "weights-only"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_checkpoint_runs_nothing(tmp_path: Path, name: str, form: str) -> None:
    marker = tmp_path / "marker"
    gadget = gadgets(marker)[name]
    if form == "original":
        original_form(tmp_path / "a.pt", args=gadget)
    else:
        seed_form(tmp_path / "a.pt", log_file=gadget)
    refused(tmp_path / "a.pt", "may be hostile")
    assert not marker.exists()


def test_the_gadgets_are_live(tmp_path: Path) -> None:
    """The same file, unpickled the usual way, does make the marker: the test above can fail."""
    marker = tmp_path / "marker"
    original_form(tmp_path / "a.pt", args=gadgets(marker)["os.system"])
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert marker.exists()


def crafted(path: Path, program: bytes) -> Path:
    """A torch zip whose pickle is a hand-written program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", b"\0" * 16)
    return path


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"\x80\2cos\nsystem\nX\4\0\0\0true\x85R.", "names os.system"),
        (b"\x80\2c__builtin__\neval\nX\1\0\0\x001\x85R.", "names builtins.eval"),
        (b"\x80\4\x8c\x06typing\x94\x8c\x0eget_type_hints\x94\x93\x94.", "names typing.get_type_hints"),
        (b"(S'true'\nios\nsystem\n.", "names os.system"),
        (b"\x80\2csomewhere\nrun_it\n)R.", "asks to call somewhere.run_it"),
        (b"\x80\4\x8c\x03lib\x94\x8c\x0eThing.__init__\x94\x93\x94)R.", "asks to call lib.Thing.__init__"),
        (b"\x80\2ccollections\nOrderedDict\n}X\1\0\0\x00aK\1sb.", "tries to change a Rebuild"),
        (b"\x80\2ctorch\nFloatStorage\n}X\5\0\0\0dtypeX\3\0\0\0hubsb.", "tries to change a StorageType"),
        (b"\x80\2csomewhere\nThing\n}X\1\0\0\x00aK\1sb.", "cannot be read"),
        (b"\x80\2csomewhere\nThing\n)R)R.", "cannot be read"),
        (b"\x80\2X\1\0\0\x00aQ.", "refers to something outside"),
        (b"\x80\2ccopyreg\n_reconstructor\nK\1K\1K\1\x87R.", "no class"),
        (b"\x80\2" + b"\x82\1.", "cannot be read"),
        (b"\x80\2(K\1", "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\2X\xff\xff\xff\x7fabc.", "cannot be read"),
    ],
)
def test_a_crafted_pickle_is_refused(tmp_path: Path, program: bytes, expected: str) -> None:
    refused(crafted(tmp_path / "a.pt", program), expected)


def tensor_program(offset: bytes, size: bytes, stride: bytes) -> bytes:
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + offset + size + stride + b"\x89}tR"
    return b"\x80\2}(X\x0a\0\0\0state_dict}X\1\0\0\x00a" + tensor + b"sX\x0c\0\0\0model_config}u."


@pytest.mark.parametrize(
    ("offset", "size", "stride", "expected"),
    [
        (b"K\1", b"K\4\x85", b"K\1\x85", "does not fit its storage"),
        (b"K\0", b"J\xff\xff\xff\x7f\x85", b"K\0\x85", "does not fit its storage"),
        (b"K\0", b"K\2\x85", b"K\4\x85", "does not fit its storage"),
        (b"K\0", b"K\2K\2\x86", b"K\1\x85", "does not fit its storage"),
        (b"J\xff\xff\xff\xff", b"K\2\x85", b"K\1\x85", "odd layout"),
        (b"K\0", b"J\xff\xff\xff\xff\x85", b"K\1\x85", "odd layout"),
        (b"K\0", b"X\1\0\0\x00a", b"K\1\x85", "odd layout"),
        (b"K\0", b"K\4\x85", b"K\1\x85", "model_config.integer_poe is missing"),
    ],
)
def test_a_tensor_beyond_its_storage(tmp_path: Path, offset: bytes, size: bytes, stride: bytes, expected: str) -> None:
    refused(crafted(tmp_path / "a.pt", tensor_program(offset, size, stride)), expected)


def test_nothing_named_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing runs code as well: a module that only the file names stays unimported."""
    (tmp_path / "lmtad_trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    program = b"\x80\2clmtad_trap\nConfig\n)\x81."
    refused(crafted(tmp_path / "a.pt", program), "state_dict is missing")
    assert "lmtad_trap" not in sys.modules


@pytest.mark.parametrize("left", [0, 10, 2000, -1, -100])
def test_truncated_files(tmp_path: Path, left: int) -> None:
    path = original_form(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes()[:left])
    refused(path)


def test_a_changed_byte_in_the_weights(tmp_path: Path) -> None:
    path = seed_form(tmp_path / "a.pt")
    content = bytearray(path.read_bytes())
    place = content.index(weights()["transformer.wpe.weight"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(path, "CRC")


def test_old_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False)
    refused(path, "before torch 1.6")
    path.write_bytes(pickle.dumps({"state_dict": {}}))
    refused(path, "zip form")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/other", "x")
    refused(path, "no checkpoint of torch.save")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 100_000)
    refused(path, "compressed")
    refused(tmp_path / "nowhere.pt", "does not exist")
    refused(tmp_path, "cannot be read")
