"""The REST form's records, in the Open Inference Protocol's own field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
# One wrong number is enough to know: without fail_fast, a million of them would make a million messages.
Row = Annotated[list[Int32], Field(fail_fast=True)]
Rows = Annotated[list[Row], Field(fail_fast=True)]
Block = Annotated[list[Rows], Field(fail_fast=True)]
Shape = Annotated[list[int], Field(fail_fast=True)]


class Asked(BaseModel):
    """A record that a client sends: fields that are not known are refused, the first of them by name.

    Nothing is converted: "7" and true are no numbers.
    """

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="after")
    def _knows_all(self) -> Self:
        for name in self.model_extra or ():
            raise ValueError(f"unknown field {name!r}: use {', '.join(type(self).model_fields)}")
        return self


class InputParameters(Asked):
    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of this tensor behind the JSON.")


class InputTensor(Asked):
    """One tensor of the dense form, as JSON numbers or as binary data."""

    name: str
    shape: Shape
    datatype: str = Field(description="INT32")
    parameters: InputParameters = InputParameters()
    data: Row | Rows | Block | None = Field(
        default=None, union_mode="left_to_right", description="Numbers in row-major order, nested or not."
    )


class OutputParameters(Asked):
    binary_data: bool | None = Field(default=None, description="Answer this output as binary data.")


class OutputRequest(Asked):
    name: str = Field(description="LOG_PROBS; or, of whole trips, LOG_LIKELIHOOD and TOKEN_COUNT")
    parameters: OutputParameters = OutputParameters()


class InferRequest(Asked):
    """`POST /v2/models/{model_name}/infer`."""

    id: str = Field(default="", description="Sent back as it is.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="digest (of the teacher that is meant), datatype (of LOG_PROBS: FP32 or FP16), priority (1: "
        "training, 2: bulk), timeout (microseconds), binary_data_output (answer in binary data).",
    )
    inputs: Annotated[list[InputTensor], Field(fail_fast=True)]
    outputs: Annotated[list[OutputRequest], Field(fail_fast=True, description="None: LOG_PROBS.")] = []


class AnswerParameters(BaseModel):
    digest: str = Field(description="Of the teacher that answered.")
    queue_us: int = Field(description="Microseconds that the request waited.")
    compute_us: int = Field(description="Microseconds on the device.")
    truncated: int = Field(description="Positions, or trips, that were cut to the last tokens that fit.")


class OutputTensor(BaseModel):
    name: Literal["LOG_PROBS", "LOG_LIKELIHOOD", "TOKEN_COUNT"]
    datatype: Literal["FP32", "FP16", "FP64", "INT32"]
    shape: list[int] = Field(description="LOG_PROBS: [B, n, K]; the others: [B, 1]")
    parameters: dict[str, int] | None = Field(default=None, description="binary_data_size, for binary data.")
    data: list[float | None] | None = Field(
        default=None,
        description="Numbers in row-major order; null where there is no candidate (in binary: -inf).",
    )


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: AnswerParameters
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is any size.")


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(BaseModel):
    name: str
    data_type: str
    dims: list[int] = Field(description="After the batch dimension; -1 is any size.")
    optional: bool | None = None


class DynamicBatching(BaseModel):
    priority_levels: int
    default_priority_level: int


class ConfigParameter(BaseModel):
    string_value: str


class ModelConfig(BaseModel):
    """The model as a Triton server's configuration would describe it."""

    name: str
    platform: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    dynamic_batching: DynamicBatching
    parameters: dict[str, ConfigParameter] = Field(description="Digest, grid, vocabulary, limits: all by name.")


class Duration(BaseModel):
    count: int
    ns: int = Field(description="All of them together, in nanoseconds.")


class InferStatistics(BaseModel):
    success: Duration
    fail: Duration
    queue: Duration
    compute_infer: Duration


class BatchStatistics(BaseModel):
    batch_size: int = Field(description="Scored positions, rounded up to a power of two.")
    compute_infer: Duration


class ModelStatistics(BaseModel):
    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970.")
    inference_count: int = Field(description="Scored positions that were answered.")
    execution_count: int = Field(description="Batches that were computed.")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    model_stats: list[ModelStatistics]


class RepositoryEntry(BaseModel):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready, or what is wrong with what should take its place.")


class ServerLive(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class ErrorMessage(BaseModel):
    error: str = Field(description="One line that says what is wrong and where.")
