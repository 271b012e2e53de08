"""What a teacher is, apart from its weights: sizes, special tokens, grid, provenance, digest. No I/O.

The digest is the teacher's identity: SHA-256 over the canonical JSON of (model, special tokens, grid) and
over every weight. Provenance (dates, paths, sources) stays outside, so the same content has the same digest
wherever it was made.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

import numpy as np
from torch import Tensor

from teacher_server.model import ModelConfig
from teacher_server.vocabulary import Grid, SpecialTokens

FORMAT = 1
TOP_FIELDS = ("format", "model", "special_tokens", "grid", "provenance", "digest")
T = TypeVar("T")


@dataclass(frozen=True)
class TeacherDescription:
    """A teacher's identity card. `provenance` may hold any JSON and is no part of the digest."""

    model: ModelConfig
    special: SpecialTokens
    grid: Grid
    provenance: dict[str, Any]
    digest: str  # 64 hex digits


def check_vocabulary(vocab_size: int, special: SpecialTokens, grid: Grid) -> None:
    """Raise ValueError unless the vocabulary is the grid's cells and, behind them, the three specials."""
    if vocab_size != grid.cells + 3:
        raise ValueError(
            f"a vocabulary of {vocab_size} tokens does not fit a grid of {grid.rows} x {grid.columns} = "
            f"{grid.cells} cells: {grid.cells + 3} (cells and PAD, EOT, SOT) are needed"
        )
    for name, token in asdict(special).items():
        if not grid.cells <= token < vocab_size:
            raise ValueError(
                f"special_tokens.{name} is {token}, but must lie behind the cells, in {grid.cells}..{vocab_size - 1}"
            )


def content_digest(state_dict: Mapping[str, Tensor], model: ModelConfig, special: SpecialTokens, grid: Grid) -> str:
    """SHA-256 (hex) of the description and of each tensor by name: (name, dtype, shape), values."""
    hasher = hashlib.sha256(_canonical(_content_json(model, special, grid)))
    for name in sorted(state_dict):
        array = state_dict[name].detach().cpu().contiguous().numpy()
        hasher.update(_canonical([name, str(array.dtype), list(array.shape)]))
        hasher.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return hasher.hexdigest()


def to_json(description: TeacherDescription) -> dict[str, Any]:
    """The content of teacher.json."""
    content = _content_json(description.model, description.special, description.grid)
    return {"format": FORMAT, **content, "provenance": description.provenance, "digest": description.digest}


def from_json(raw: object) -> TeacherDescription:
    """Inverse of `to_json`. Raises ValueError naming a field that is missing, unknown or of an odd type."""
    top = _object(raw, "the file")
    if "format" in top and top["format"] != FORMAT:
        raise ValueError(f"format is {top['format']!r}, but this version reads only format {FORMAT}")
    _check_names(top, TOP_FIELDS, "")
    digest = top["digest"]
    if not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)):
        raise ValueError(f"digest must be 64 hexadecimal digits, got {digest!r}")
    description = TeacherDescription(
        model=read_fields(ModelConfig, top["model"], "model"),
        special=read_fields(SpecialTokens, top["special_tokens"], "special_tokens"),
        grid=read_fields(Grid, top["grid"], "grid"),
        provenance=dict(_object(top["provenance"], "provenance")),
        digest=digest,
    )
    check_vocabulary(description.model.vocab_size, description.special, description.grid)
    return description


def read_fields(kind: type[T], raw: object, where: str) -> T:
    """A flat dataclass from a JSON object that has exactly its fields.

    Raises ValueError naming `where.field` for a missing, unknown or wrongly typed field, or for a value that
    the dataclass itself refuses.
    """
    values = _object(raw, where)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    _check_names(values, names, f"{where}.")
    hints = get_type_hints(kind)
    checked = {name: _typed(values[name], hints[name], f"{where}.{name}") for name in names}
    try:
        return kind(**checked)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _content_json(model: ModelConfig, special: SpecialTokens, grid: Grid) -> dict[str, Any]:
    return {"model": _plain(model), "special_tokens": _plain(special), "grid": _plain(grid)}


def _plain(record: Any) -> dict[str, Any]:
    """Fields as JSON values; whole-numbered floats stay floats, so that 1 and 1.0 have one digest."""
    hints = get_type_hints(type(record))
    return {name: float(value) if hints[name] is float else value for name, value in asdict(record).items()}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _object(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"{where} must be a JSON object, got {_shown(raw)}")
    return raw


def _check_names(values: Mapping[str, Any], names: Iterable[str], prefix: str) -> None:
    names = list(names)
    for name in names:
        if name not in values:
            raise ValueError(f"field {prefix}{name} is missing")
    for name in values:
        if name not in names:
            raise ValueError(f"unknown field {prefix}{name}")


def _typed(value: object, kind: type, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if type(value) is not kind:
        raise ValueError(f"{where} must be of type {kind.__name__}, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
