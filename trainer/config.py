"""The trainer's settings as one frozen, validated Config.

Section and key names are those of the research code, so that its files load unchanged. Defaults are ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainer.section import NonNegative, Positive, PositiveFloat, Section, Share
from trainer.tuning.settings import Tuning


def _yaml_off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


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
    prefetch: Annotated[int, Field(ge=0, le=64)] = 2  # steps that the teacher is asked ahead
    on_teacher_loss: Literal["wait", "skip-kl", "fail"] = "wait"  # when no endpoint answers
    wait_limit_s: PositiveFloat = 1800.0  # of `wait`; then the run is saved and ends
    keep_labels: bool = True  # in a store that later epochs and runs read; see --labels
    mode: Literal["off-policy", "on-policy", "mixed"] = "off-policy"  # whose trips the KL is on: real ones, own ones
    own_share: Share = 0.5  # of the KL's trips that are the student's own in `mixed`
    refresh_every: Positive = 50  # optimiser steps between two draws of own routes
    own_temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0  # at which roads are drawn
    own_max_steps: Positive = 128  # of an own route; no more than max_len
    teacher_digest: str | None = None  # the only teacher that will do
    grid_size: PositiveFloat | None = None  # degrees; only checked against the teacher's
    downsample: Positive | None = None  # only checked against the teacher's
    repo: str | None = None
    ckpt: str | None = None
    dtype: str | None = None
    verbose: bool | None = None
    sample_steps_per_trace: int | None = None
    verify_grid_dims: bool | None = None

    @property
    def history(self) -> int:
        """Tokens of a step's history that the teacher sees, as requests and label stores have it; 0: all of them."""
        return 0 if self.window == "full" else self.window

    @property
    def own_part(self) -> float:
        """Of the KL's trips, the part that the student draws itself."""
        return {"off-policy": 0.0, "on-policy": 1.0, "mixed": self.own_share}[self.mode]


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
    deterministic: bool = False  # on a GPU: the same sums in every run, somewhat slower
    checkpoint_every_s: NonNegative = 60.0  # besides the end of every epoch; a killed run loses no more than this
    max_bad_steps: Annotated[int, Field(ge=0)] = 10  # steps whose loss or gradient is not finite, left out
    amp: Annotated[Literal["off", "fp16", "bf16"], BeforeValidator(_yaml_off)] = "off"  # half precision
    torch_compile: bool = False
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    disable_cudagraphs: bool = False  # a research key: there are none, as trips differ in length


class Profiling(Section):
    """How often step metrics are written."""

    enable: bool = True
    log_interval: Positive = 10  # optimiser steps


class Wandb(Section):
    """Weights & Biases."""

    enable: bool = False
    project: str | None = None
    run_name: str | None = None  # empty: the run folder's name
    tags: list[str] = Field(default_factory=list)
    mode: Literal["online", "offline"] | None = None  # empty: as WANDB_MODE says, online without it


class TensorBoard(Section):
    """Event files in the run folder."""

    enable: bool = False


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
    tensorboard: TensorBoard = TensorBoard()
    optuna: Tuning = Tuning()  # of `trainer tune` alone

    def plain(self) -> dict[str, Any]:
        """As plain values under their YAML names."""
        return self.model_dump(mode="json", by_alias=True)


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
    drawn = ("refresh_every", "own_temperature", "own_max_steps") if distill.mode == "off-policy" else ()
    unused = drawn if distill.mode == "mixed" else ("own_share", *drawn)
    names += [f"distill.{key}" for key in unused if getattr(distill, key) != type(distill).model_fields[key].default]
    names += [f"dataloader.{key}" for key in type(dataloader).model_fields if getattr(dataloader, key) is not None]
    if not training.torch_compile:
        names += ["training.torch_compile_mode"] * (training.torch_compile_mode != "default")
        names += ["training.disable_cudagraphs"] * training.disable_cudagraphs
    return names + ["optuna"] * (config.optuna != Tuning())
