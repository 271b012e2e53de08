"""Reads a configuration: a YAML file and `--set` overrides in, a validated Config or one clear error out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trainer.config import Config
from trainer.errors import BadInput
from trainer.section import Section

UNION_BRANCH = re.compile(
    r"constrained-|literal\[|WindowRange"
)  # what pydantic adds to a key that may be one of several types


def load_config(file: Path | None, overrides: Iterable[str] = ()) -> Config:
    """Reads a YAML file (or the defaults) and applies `section.key=value` overrides. Raises BadInput."""
    tree = _read_yaml(file) if file else {}
    for override in overrides:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        where = f"{file}: " if file else ""
        raise BadInput(where + _summary(error)) from None


def config_from(tree: dict[str, Any]) -> Config:
    """A config that was saved with a run or a checkpoint. Raises BadInput."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise BadInput(f"saved config: {_summary(error)}") from None


def with_values(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """The same with other values, by `section.key`. Raises BadInput, which says where the values come from."""
    tree = config.plain()
    for key, value in values.items():
        _put(tree, key.split("."), value, f"{where}: {key}")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise BadInput(f"{where}: {_summary(error)}") from None


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML's own keeps the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        given: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in given:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1} gives the key {key.value!r} a second time")
            given.add(key.value)
        return node


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read as a config ({error})") from None
    try:
        tree = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, a number too long
        raise BadInput(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise BadInput(f"{file}: must hold sections and keys, not a {type(tree).__name__}")
    # An empty section (`optuna:`) means its defaults.
    return {key: {} if value is None and key != "data_dir" else value for key, value in tree.items()}


def _apply(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise BadInput(f"--set {override!r}: must be section.key=value")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadInput(f"--set {override!r}: {text!r} is not a YAML value") from None
    _put(tree, keys, value, f"--set {override!r}")


def _put(tree: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise BadInput(f"{where}: {key!r} is no section")
        tree = below
    tree[keys[-1]] = value


def _summary(error: ValidationError) -> str:
    """All that is wrong in one line, each key named once."""
    said: dict[str, list[str]] = {}
    for part in error.errors(include_url=False):
        subject, problem = _explain(part)
        said.setdefault(subject, []).append(problem)
    return "; ".join(f"{subject}: {' or '.join(problems)}" for subject, problems in said.items())


def _explain(error: Any) -> tuple[str, str]:
    """One pydantic error as key and problem, with the nearest name for an unknown key."""
    path = [str(part) for part in error["loc"] if not UNION_BRANCH.match(str(part))]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _names_at(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {name}", hint
    return f"{name} = {error['input']!r}", error["msg"].replace("Input should be", "must be").removeprefix(
        "Value error, "
    )


def _names_at(path: list[str]) -> list[str]:
    """Keys that a section has, by their YAML names."""
    model: Any = Config
    for part in path:
        if part not in model.model_fields:  # the name of one of several sections
            continue
        annotation = model.model_fields[part].annotation
        model = next(
            a for a in getattr(annotation, "__args__", (annotation,)) if isinstance(a, type) and issubclass(a, Section)
        )
    return [field.alias or name for name, field in model.model_fields.items()]
