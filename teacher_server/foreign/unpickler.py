"""Reads torch's zip checkpoints of unknown origin without running anything that they name.

A pickle is a little program that may name any function and have it called. Here every name resolves to an inert
stand-in: tensors become `StoredTensor`, instances of classes become `Record`, and what a file asks to call as a
function is refused. No module that a file names is ever imported.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from teacher_server.errors import BadArtifact

# Of Python's own modules, only these names may occur; all of them become records.
KNOWN_CLASSES = {
    "argparse": {"Namespace"},
    "builtins": {"bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set"}
    | {"slice", "str", "tuple"},
    "collections": {"Counter", "defaultdict"},
    "datetime": {"date", "datetime", "timedelta", "timezone"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}
# Functions by which plain values of numpy and torch are pickled. Called, they become records too.
KNOWN_FUNCTIONS = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("torch", "device"),
}
STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}


class Fixed:
    """What a pickle may name or make, but not change afterwards (its BUILD instruction would)."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> NoReturn:
        _refuse(f"tries to change a {type(self).__name__}")


@dataclass(frozen=True)
class StorageType(Fixed):
    """A torch storage class, by the name of its number type."""

    dtype: str


@dataclass(frozen=True)
class Storage(Fixed):
    """The numbers behind one or more tensors: an entry of the zip file."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class StoredTensor(Fixed):
    """Where a tensor's values lie. Nothing here has been checked yet."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class RecordType(type):
    """The class of stand-in classes. Calling one is how a pickle calls what it has named."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not _may_be_called(cls.module, cls.name):  # type: ignore[attr-defined]
            _refuse(f"asks to call {cls.module}.{cls.name}")  # type: ignore[attr-defined]
        return super().__call__(*args, **kwargs)


class Record(metaclass=RecordType):
    """An instance of an unknown class: what it was made from and its fields, without its behaviour."""

    __slots__ = ("arguments", "fields", "items")
    module = ""
    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = super().__new__(cls)
        record.arguments = (args, kwargs)
        record.fields = {}
        record.items = []
        return record

    def __init__(self, *_: Any, **__: Any) -> None:
        self.arguments: tuple[Any, Any]
        self.fields: dict[str, Any]
        self.items: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Keep what would have become attributes: a dict, or (dict or None, slots)."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: Any) -> None:
        self.items.extend(values)


class PlainDict(dict[Any, Any]):
    """An OrderedDict without its attributes (torch hangs `_metadata` on state dicts)."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Rebuild(Fixed):
    """A function of torch or Python that a checkpoint may call, as an inert equivalent of our own."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


def _instance(kind: Any, *_: Any) -> Record:
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        _refuse("asks for an instance of something that is no class")
    return kind.__new__(kind)


REBUILDS = {
    ("collections", "OrderedDict"): Rebuild(PlainDict),
    ("copyreg", "_reconstructor"): Rebuild(_instance),
    ("torch", "Size"): Rebuild(tuple),
    ("torch._utils", "_rebuild_tensor"): Rebuild(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Rebuild(_tensor),
    ("torch._utils", "_rebuild_parameter"): Rebuild(lambda data, *_: data),
}


class InertUnpickler(pickle.Unpickler):
    """Turns a checkpoint's pickle into dicts, lists, plain values, StoredTensors and Records, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # torch.save writes Python 2's names: subprocess.Popen appears as commands.Popen.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if (module, name) in REBUILDS:
            return REBUILDS[module, name]
        if module == "torch" and name in STORAGES:
            return StorageType(STORAGES[name])
        top = module.partition(".")[0]
        allowed = name in KNOWN_CLASSES.get(module, ()) or (module, name) in KNOWN_FUNCTIONS
        if top in sys.stdlib_module_names and not allowed:
            _refuse(f"names {module}.{name}")
        return RecordType("Record", (Record,), {"__slots__": (), "module": module, "name": name})

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType(dtype), str(key), _, int(numel)):
                return Storage(key, dtype, numel)
        raise BadArtifact("refers to something outside that is no tensor storage")


def _may_be_called(module: str, name: str) -> bool:
    """Whether a call makes an instance: Python's naming tells classes from functions, and few exceptions exist."""
    if name in KNOWN_CLASSES.get(module, ()) or (module, name) in KNOWN_FUNCTIONS:
        return True
    return name.rpartition(".")[2].lstrip("_")[:1].isupper()


def _refuse(what: str) -> NoReturn:
    raise BadArtifact(f"{what}, which no model checkpoint needs: the file may be hostile, and nothing of it was run")


def read_pickle(archive: zipfile.ZipFile, entry: str) -> Any:
    """The inert content of one entry. Raises BadArtifact; its message lacks the file, which the caller adds."""
    try:
        return InertUnpickler(io.BytesIO(archive.read(entry))).load()
    except BadArtifact:
        raise
    except Exception as error:  # arbitrary bytes can make the unpickler raise anything
        raise BadArtifact(f"{entry} cannot be read: {type(error).__name__}: {error}") from None
