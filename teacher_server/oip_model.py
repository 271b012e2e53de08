"""What a teacher tells of itself in the Open Inference Protocol, here as on a real Triton server.

Every parameter of a model's configuration is a string there; records are JSON. A request may carry the parameters
`digest` (the teacher that is meant) and `datatype` (FP32 or FP16: the type of the answer).
"""

from __future__ import annotations

import json
from dataclasses import asdict

from teacher_server import __version__
from teacher_server.description import TeacherDescription
from teacher_server.limits import Limits


def config_parameters(description: TeacherDescription, compute_type: str, limits: Limits) -> dict[str, str]:
    """What `Describe` says, by the same names: all that a client needs to build its tokens and keep to the limits."""
    numbers = {
        "vocab_size": description.model.vocab_size,
        "cells": description.grid.cells,
        "block_size": description.model.block_size,
        **asdict(description.special),
    }
    return {
        "digest": description.digest,
        **{name: str(number) for name, number in numbers.items()},
        "grid": json.dumps(asdict(description.grid)),
        "compute_type": compute_type,
        "limits": json.dumps(asdict(limits)),
        "server_version": __version__,
    }
