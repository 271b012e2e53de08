"""Writes a teacher as a Triton model repository that needs nothing else of ours:

OUT/NAME/config.pbtxt               tensors, dynamic batching, and the teacher's identity as parameters
OUT/NAME/1/model.py                 the Python backend's entry
OUT/NAME/1/teacher_server/...       the modules that it needs
OUT/NAME/1/artifact/...             the teacher, unchanged
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from teacher_server.artifact import DESCRIPTION, WEIGHTS, load_artifact
from teacher_server.dense import INPUTS, OUTPUTS, Input, Output
from teacher_server.description import TeacherDescription
from teacher_server.engine import DTYPES
from teacher_server.errors import BadSettings
from teacher_server.files import whole_folder
from teacher_server.limits import Limits
from teacher_server.oip_model import config_parameters

PACKAGE = Path(__file__).resolve().parents[1]
ENTRY = PACKAGE / "triton" / "model.py"
KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "cuda": "KIND_GPU"}  # of a Triton instance


@dataclass(frozen=True)
class TritonSettings:
    """How a Triton server is to serve the teacher."""

    name: str = "teacher"  # of the model
    device: str = "auto"  # auto: a GPU where Triton finds one
    dtype: str = "float32"  # known when the repository is written, because clients are told
    max_batch_size: int = 4096  # histories of all requests that are merged
    max_queue_size: int = 1024  # requests that may wait; more are refused (UNAVAILABLE)
    batch_tokens: int = 0  # row tokens that the device computes at once; 0: what the device is good at

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise BadSettings(f"bad model name {self.name!r}: use letters, digits, '_', '-' and '.'")
        if self.device not in KINDS:
            raise BadSettings(f"unknown device {self.device!r}: use {', '.join(KINDS)}")
        if self.dtype not in DTYPES:
            raise BadSettings(f"unknown dtype {self.dtype!r}: use {', '.join(DTYPES)}")
        for name, lowest in (("max_batch_size", 1), ("max_queue_size", 1), ("batch_tokens", 0)):
            if getattr(self, name) < lowest:
                raise BadSettings(f"{name} must be at least {lowest}, got {getattr(self, name)}")


def write_repository(artifact: Path, out: Path, settings: TritonSettings, overwrite: bool = False) -> str:
    """Write the repository so that it appears whole or not at all; returns the teacher's digest.

    `overwrite` replaces an older repository of a teacher, never any other folder. Raises BadArtifact and BadSettings.
    """
    description = load_artifact(artifact).description  # verified: what is copied is what the digest says
    _check_target(out, overwrite)
    with whole_folder(out) as fresh:
        model = fresh / settings.name
        version = model / "1"
        (version / "artifact").mkdir(parents=True)
        for file in (DESCRIPTION, WEIGHTS):
            shutil.copyfile(artifact / file, version / "artifact" / file)
        for module in modules_of(ENTRY):
            target = version / module.relative_to(PACKAGE.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, target)
        shutil.copyfile(ENTRY, version / "model.py")
        (model / "config.pbtxt").write_text(model_config(description, settings), encoding="utf-8")
    return description.digest


def model_config(description: TeacherDescription, settings: TritonSettings) -> str:
    """config.pbtxt. Requests of different shapes are merged: every input whose size may differ is ragged."""
    limits = replace(Limits(), max_sequences=settings.max_batch_size)
    parameters = config_parameters(description, settings.dtype, limits) | {"batch_tokens": str(settings.batch_tokens)}
    lines = [
        f"name: {json.dumps(settings.name)}",
        'backend: "python"',
        f"max_batch_size: {settings.max_batch_size}",
        *(f"input {{ {_input(known)} }}" for known in INPUTS.values()),
        *(f"output {{ {_output(known)} }}" for known in OUTPUTS.values()),
        f"instance_group {{ count: 1 kind: {KINDS[settings.device]} }}",
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 "  # 1: training, 2: bulk, as in our server
        f"default_queue_policy {{ allow_timeout_override: true max_queue_size: {settings.max_queue_size} }} }}",
        *(
            f'parameters {{ key: "{name}" value {{ string_value: {json.dumps(value)} }} }}'
            for name, value in parameters.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def modules_of(file: Path) -> list[Path]:
    """The files of this package that importing a file of it runs, packages' `__init__` included, sorted."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        for module in _imported(waiting.pop()):
            if module not in found:
                found.add(module)
                waiting.append(module)
    return sorted(found)


def _imported(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            parts = node.module.split(".")
            for names in (parts, *([*parts, alias.name] for alias in node.names)):
                yield from _files_of(names)


def _files_of(names: list[str]) -> Iterator[Path]:
    """The module of that dotted name, if it is one, and the packages that it lies in."""
    module = PACKAGE.parent.joinpath(*names)
    if module.with_suffix(".py").is_file():
        yield module.with_suffix(".py")
    for depth in range(1, len(names) + 1):
        package = PACKAGE.parent.joinpath(*names[:depth], "__init__.py")
        if package.is_file():
            yield package


def _input(known: Input) -> str:
    dims = ", ".join(map(str, known.dims))
    ragged = " allow_ragged_batch: true" if -1 in known.dims else ""
    optional = " optional: true" if known.optional else ""
    return f'name: "{known.name}" data_type: TYPE_INT32 dims: [ {dims} ]{ragged}{optional}'


def _output(known: Output) -> str:
    return f'name: "{known.name}" data_type: TYPE_{known.datatype} dims: [ {", ".join(map(str, known.dims))} ]'


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out.is_dir() and all((model / "1" / "artifact" / DESCRIPTION).is_file() for model in out.iterdir())):
        raise BadSettings(f"{out} exists and is no Triton repository of a teacher: choose another folder")
    if not overwrite:
        raise BadSettings(f"{out} already holds a Triton repository: choose another folder or pass --overwrite")
