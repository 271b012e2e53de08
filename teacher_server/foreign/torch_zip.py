"""A torch checkpoint as a zip file: its inert content, and the tensors that are asked for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from teacher_server.errors import BadArtifact
from teacher_server.foreign.unpickler import Storage, StoredTensor, read_pickle


class TorchZip:
    """Opens a file that `torch.save` wrote (torch 1.6 or later). Every method raises BadArtifact naming it.

    Values are read when `tensor` asks for them, so an optimiser's state costs nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._storages: dict[str, Tensor] = {}
        self._archive = _open(path)
        self._root = self._find_root()

    def __enter__(self) -> TorchZip:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._archive.close()

    def content(self) -> Any:
        """The pickled object, with StoredTensor for tensors and Record for instances of classes."""
        try:
            return read_pickle(self._archive, f"{self._root}data.pkl")
        except BadArtifact as error:
            raise BadArtifact(f"{self.path}: {' '.join(str(error).split())}") from None

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The values of a tensor, contiguous, in a memory of their own."""
        storage, size, stride = stored.storage, stored.size, stored.stride
        numbers = (stored.offset, *_integers(size), *_integers(stride))
        if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise BadArtifact(f"{self.path}: a tensor has an odd layout: {str(stored)[:80]}")
        flat = self._storage(storage)
        elements, last = 1, stored.offset
        for length, step in zip(size, stride, strict=False):
            elements, last = elements * length, last + (length - 1) * step
        # A stride of 0 could blow a few bytes up to any size: a parameter never has more elements than bytes allow.
        if len(size) != len(stride) or elements > len(flat) or (elements and last >= len(flat)):
            raise BadArtifact(f"{self.path}: a tensor of shape {list(size)} does not fit its storage")
        return flat.as_strided(size, stride, stored.offset).clone(memory_format=torch.contiguous_format)

    def _find_root(self) -> str:
        entries = self._archive.namelist()
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in entries):
            raise BadArtifact(f"{self.path}: no checkpoint of torch.save: {len(pickles)} entries */data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in self._archive.infolist()):
            raise BadArtifact(f"{self.path}: has compressed entries, which torch.save never writes")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and self._read(f"{root}byteorder") != b"little":
            raise BadArtifact(f"{self.path}: was written on a big-endian machine; save it again on another")
        return root

    def _storage(self, storage: Storage) -> Tensor:
        if storage.key not in self._storages:
            dtype: torch.dtype = getattr(torch, storage.dtype)
            raw = self._read(f"{self._root}data/{storage.key}")
            if len(raw) != storage.numel * dtype.itemsize:
                raise BadArtifact(
                    f"{self.path}: storage {storage.key!r} holds {len(raw)} bytes, but {storage.numel} values of "
                    f"{storage.dtype} are promised"
                )
            # frombuffer refuses zero bytes.
            values = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            self._storages[storage.key] = values
        return self._storages[storage.key]

    def _read(self, entry: str) -> bytes:
        try:
            return self._archive.read(entry)
        except (KeyError, OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise BadArtifact(f"{self.path}: entry {entry} cannot be read: {error}") from None


def _integers(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise BadArtifact(f"{path} does not exist") from None
    except zipfile.BadZipFile:
        raise BadArtifact(
            f"{path}: no complete checkpoint in the zip form of torch.save: it is truncated, of another kind, or "
            "from before torch 1.6 (then load and save it again with a newer torch, where you trust it)"
        ) from None
    except OSError as error:
        raise BadArtifact(f"{path}: cannot be read: {error.strerror or error}") from None
