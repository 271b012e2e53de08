"""What a model's parameters must say for it to be a teacher."""

from __future__ import annotations

import json

import pytest

from teacher_server.limits import Limits as ServerLimits
from trainer.teacher.endpoint import EndpointError
from trainer.teacher.triton import description_of

PARAMETERS = {
    "digest": "d",
    "vocab_size": "4",
    "cells": "1",
    "pad": "1",
    "eot": "2",
    "sot": "3",
    "block_size": "9",
    "grid": json.dumps(
        {"min_lat": 0, "max_lat": 1, "min_lng": 0, "max_lng": 1, "cell_lat": 2, "cell_lng": 2, "rows": 1, "columns": 1}
    ),
    "compute_type": "float32",
    "limits": json.dumps(vars(ServerLimits())),
}


def test_a_whole_description() -> None:
    description = description_of(PARAMETERS, "host:1/m")
    description.check()
    assert description.block_size == 9
    assert description.limits.row_tokens == ServerLimits().max_row_tokens


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_missing_is_named(name: str) -> None:
    rest = {key: value for key, value in PARAMETERS.items() if key != name}
    with pytest.raises(EndpointError, match=f"host:1/m is a model, but no teacher: it has no parameter '{name}'"):
        description_of(rest, "host:1/m")


@pytest.mark.parametrize(
    ("name", "value"), [("cells", "many"), ("grid", "{"), ("grid", '{"lat": 1}'), ("limits", "[]"), ("limits", "{}")]
)
def test_a_parameter_that_makes_no_sense(name: str, value: str) -> None:
    with pytest.raises(EndpointError, match="host:1/m is a model, but no teacher"):
        description_of(PARAMETERS | {name: value}, "host:1/m")
