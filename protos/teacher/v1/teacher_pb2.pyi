from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_TYPE_UNSPECIFIED: _ClassVar[TokenType]
    TOKEN_TYPE_UINT16: _ClassVar[TokenType]
    TOKEN_TYPE_INT32: _ClassVar[TokenType]

class FloatType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLOAT_TYPE_UNSPECIFIED: _ClassVar[FloatType]
    FLOAT_TYPE_FLOAT32: _ClassVar[FloatType]
    FLOAT_TYPE_FLOAT16: _ClassVar[FloatType]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_TRAINING: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]
TOKEN_TYPE_UNSPECIFIED: TokenType
TOKEN_TYPE_UINT16: TokenType
TOKEN_TYPE_INT32: TokenType
FLOAT_TYPE_UNSPECIFIED: FloatType
FLOAT_TYPE_FLOAT32: FloatType
FLOAT_TYPE_FLOAT16: FloatType
PRIORITY_TRAINING: Priority
PRIORITY_BULK: Priority

class Grid(_message.Message):
    __slots__ = ("min_lat", "max_lat", "min_lng", "max_lng", "cell_lat", "cell_lng", "rows", "columns", "downsample", "centroid_rule")
    MIN_LAT_FIELD_NUMBER: _ClassVar[int]
    MAX_LAT_FIELD_NUMBER: _ClassVar[int]
    MIN_LNG_FIELD_NUMBER: _ClassVar[int]
    MAX_LNG_FIELD_NUMBER: _ClassVar[int]
    CELL_LAT_FIELD_NUMBER: _ClassVar[int]
    CELL_LNG_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DOWNSAMPLE_FIELD_NUMBER: _ClassVar[int]
    CENTROID_RULE_FIELD_NUMBER: _ClassVar[int]
    min_lat: float
    max_lat: float
    min_lng: float
    max_lng: float
    cell_lat: float
    cell_lng: float
    rows: int
    columns: int
    downsample: int
    centroid_rule: str
    def __init__(self, min_lat: _Optional[float] = ..., max_lat: _Optional[float] = ..., min_lng: _Optional[float] = ..., max_lng: _Optional[float] = ..., cell_lat: _Optional[float] = ..., cell_lng: _Optional[float] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., downsample: _Optional[int] = ..., centroid_rule: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_sequences", "max_tokens", "max_positions", "max_candidates", "max_message_bytes", "max_row_tokens")
    MAX_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_sequences: int
    max_tokens: int
    max_positions: int
    max_candidates: int
    max_message_bytes: int
    max_row_tokens: int
    def __init__(self, max_sequences: _Optional[int] = ..., max_tokens: _Optional[int] = ..., max_positions: _Optional[int] = ..., max_candidates: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_row_tokens: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("digest", "model")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    model: str
    def __init__(self, digest: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("digest", "vocab_size", "cells", "pad", "eot", "sot", "block_size", "grid", "token_type", "compute_type", "limits", "server_version")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    PAD_FIELD_NUMBER: _ClassVar[int]
    EOT_FIELD_NUMBER: _ClassVar[int]
    SOT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TYPE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    digest: str
    vocab_size: int
    cells: int
    pad: int
    eot: int
    sot: int
    block_size: int
    grid: Grid
    token_type: TokenType
    compute_type: str
    limits: Limits
    server_version: str
    def __init__(self, digest: _Optional[str] = ..., vocab_size: _Optional[int] = ..., cells: _Optional[int] = ..., pad: _Optional[int] = ..., eot: _Optional[int] = ..., sot: _Optional[int] = ..., block_size: _Optional[int] = ..., grid: _Optional[_Union[Grid, _Mapping]] = ..., token_type: _Optional[_Union[TokenType, str]] = ..., compute_type: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., server_version: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("digest", "tokens", "lengths", "scored", "window", "candidates", "candidate_counts", "reply_type", "priority", "model")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    REPLY_TYPE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    tokens: bytes
    lengths: bytes
    scored: bytes
    window: int
    candidates: bytes
    candidate_counts: bytes
    reply_type: FloatType
    priority: Priority
    model: str
    def __init__(self, digest: _Optional[str] = ..., tokens: _Optional[bytes] = ..., lengths: _Optional[bytes] = ..., scored: _Optional[bytes] = ..., window: _Optional[int] = ..., candidates: _Optional[bytes] = ..., candidate_counts: _Optional[bytes] = ..., reply_type: _Optional[_Union[FloatType, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., model: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("log_probs", "reply_type", "digest", "queue_us", "compute_us", "truncated")
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    REPLY_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    log_probs: bytes
    reply_type: FloatType
    digest: str
    queue_us: int
    compute_us: int
    truncated: int
    def __init__(self, log_probs: _Optional[bytes] = ..., reply_type: _Optional[_Union[FloatType, str]] = ..., digest: _Optional[str] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., truncated: _Optional[int] = ...) -> None: ...

class LikelihoodRequest(_message.Message):
    __slots__ = ("digest", "tokens", "lengths", "priority", "model")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    tokens: bytes
    lengths: bytes
    priority: Priority
    model: str
    def __init__(self, digest: _Optional[str] = ..., tokens: _Optional[bytes] = ..., lengths: _Optional[bytes] = ..., priority: _Optional[_Union[Priority, str]] = ..., model: _Optional[str] = ...) -> None: ...

class LikelihoodResponse(_message.Message):
    __slots__ = ("log_likelihoods", "token_counts", "digest", "queue_us", "compute_us", "truncated")
    LOG_LIKELIHOODS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    log_likelihoods: bytes
    token_counts: bytes
    digest: str
    queue_us: int
    compute_us: int
    truncated: int
    def __init__(self, log_likelihoods: _Optional[bytes] = ..., token_counts: _Optional[bytes] = ..., digest: _Optional[str] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., truncated: _Optional[int] = ...) -> None: ...
