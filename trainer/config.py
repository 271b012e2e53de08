"""The trainer's settings: YAML and `--set` overrides in, one frozen and validated Config out.

Section and key names are those of the research code, so that its files load unchanged. Defaults are ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import BadInput

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UNION_BRANCH = re.compile(r"constrained-|literal\[")  # what pydantic adds to a key that may be one of several types
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class RoadAttributes(Section):
    """Research keys; must be empty, because the values come from the data."""

    len: None = None
    type: None = None
    lon: None = None
    lat: None = None


class RoadFeatures(Section):
    """Research keys; must be empty, because the values come from the data."""

    road_attr: RoadAttributes | None = None
    road_edge_index: None = None
    intersection_attr: None = None
    zone_edge_index: None = None
    zone_edge_weight: None = None


class RoadEncoder(Section):
    """Widths of the road network encoder's tables. Row counts that are empty come from the data."""

    road_id_emb_dim: Positive = 64
    len_emb_dim: Positive = 16
    type_emb_dim: Positive = 16
    lon_emb_dim: Positive = 16
    lat_emb_dim: Positive = 16
    intersection_emb_dim: Positive = 128
    zone_id_emb_dim: Positive = 128
    road_id_num_embeddings: Positive | None = None
    type_num_embeddings: Positive | None = None
    zone_id_num_embeddings: Positive | None = None


class TrajectoryEncoderConfig(Section):
    """The transformer over a trip's steps."""

    hidden_dim: Positive = 128
    num_heads: Positive = 2
    num_layers: Positive = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_len: Positive = 1024  # steps; a longer trip keeps its last ones
    grad_checkpoint: bool = False


class NavigatorConfig(Section):
    """The candidate scorer."""

    hidden_dim: Positive = 128


class OptimizerConfig(Section):
    """AdamW with warm-up and cosine decay, counted in optimiser steps."""

    max_epoch: Positive = 25
    batch_size: Positive = 64
    accum_steps: Positive = 1
    learning_rate: PositiveFloat = 0.001
    weight_decay: NonNegative = 0.1  # on matrices
    warmup_ratio: Share = 0.1
    max_norm: PositiveFloat = 1.0


class Distill(Section):
    """The teacher's part in the loss."""

    enable: bool = True
    teacher: str | None = None  # address; --teacher goes before it
    window: Annotated[int, Field(ge=1)] | Literal["full"] = "full"
    lambda_: Annotated[float, Field(ge=0, le=1e6)] = Field(default=0.1, alias="lambda")
    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    tau_squared: bool = False  # multiply the KL by temperature squared
    positions: Literal["all", "last"] = "all"
    shared_cells: Literal["full", "split"] = "full"
    deadline_s: PositiveFloat = 120.0  # of one request
    teacher_digest: str | None = None  # the only teacher that will do
    grid_size: PositiveFloat | None = None  # degrees; only checked against the teacher's
    downsample: Positive | None = None  # only checked against the teacher's
    repo: str | None = None
    ckpt: str | None = None
    dtype: str | None = None
    verbose: bool | None = None
    sample_steps_per_trace: int | None = None
    verify_grid_dims: bool | None = None


class Dataloader(Section):
    """Research keys; features are made on the device, so there are no workers."""

    num_workers: int | None = None
    pin_memory: bool | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool | None = None
    timeout: float | None = None


class Data(Section):
    """How trips become features."""

    candidate_top_k: Annotated[int, Field(ge=0)] = 0  # in training keep the k candidates nearest to the goal; 0: all
    angle: Literal["original", "geographic"] = "original"  # formula of `metric_angle`; checkpoints depend on it


class Training(Section):
    """Seed and numerics."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    allow_tf32: bool = False
    cudnn_benchmark: bool = False
    torch_compile: bool = False
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    disable_cudagraphs: bool = False


class Profiling(Section):
    """How often step metrics are written."""

    enable: bool = True
    log_interval: Positive = 10  # optimiser steps


class Wandb(Section):
    """Research keys of the experiment tracker."""

    enable: bool = False
    project: str | None = None
    run_name: str | None = None
    tags: list[str] = Field(default_factory=list)


class Config(Section):
    """All settings of a training run."""

    data_dir: str | None = None
    road_network_encoder_config: RoadEncoder = RoadEncoder()
    road_network_encoder_feature: RoadFeatures = RoadFeatures()
    trajectory_encoder_config: TrajectoryEncoderConfig = TrajectoryEncoderConfig()
    navigator_config: NavigatorConfig = NavigatorConfig()
    optimizer_config: OptimizerConfig = OptimizerConfig()
    distill: Distill = Distill()
    dataloader: Dataloader = Dataloader()
    data: Data = Data()
    training: Training = Training()
    profiling: Profiling = Profiling()
    wandb: Wandb = Wandb()
    optuna: dict[str, Any] = Field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As plain values under their YAML names."""
        return self.model_dump(mode="json", by_alias=True)


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


def without_effect(config: Config) -> list[str]:
    """Keys that were given a value but mean nothing here, for one notice."""
    distill, dataloader, training = config.distill, config.dataloader, config.training
    encoder = config.road_network_encoder_config
    names = ["road_network_encoder_config.intersection_emb_dim"] * ("intersection_emb_dim" in encoder.model_fields_set)
    names += [
        f"distill.{key}"
        for key in ("repo", "dtype", "verbose", "sample_steps_per_trace", "verify_grid_dims")
        if getattr(distill, key) is not None
    ]
    names += [f"dataloader.{key}" for key in type(dataloader).model_fields if getattr(dataloader, key) is not None]
    names += [f"training.{key}" for key in ("torch_compile", "disable_cudagraphs") if getattr(training, key)]
    names += ["training.torch_compile_mode"] * (training.torch_compile_mode != "default")
    names += ["wandb"] * config.wandb.enable + ["optuna"] * bool(config.optuna)
    return names


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
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise BadInput(f"--set {override!r}: {key!r} is no section")
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
    return f"{name} = {error['input']!r}", error["msg"].replace("Input should be", "must be")


def _names_at(path: list[str]) -> list[str]:
    """Keys that a section has, by their YAML names."""
    model: Any = Config
    for part in path:
        annotation = model.model_fields[part].annotation
        model = next(
            a for a in getattr(annotation, "__args__", (annotation,)) if isinstance(a, type) and issubclass(a, Section)
        )
    return [field.alias or name for name, field in model.model_fields.items()]
