"""What a teacher says over the Open Inference Protocol, whoever serves it, against what it says over its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainer.errors import TeacherMismatch
from trainer.teacher.grpc import GrpcTeacher
from trainer.teacher.protocol import Query, Teacher
from trainer.teacher.triton import TritonTeacher

WINDOWS = (0, 1, 5, 47, 60)  # the block has room for 47 tokens


def query_of(teacher: Teacher, seed: int, window: int, histories: int = 40) -> Query:
    """Histories of 1 to 60 tokens with 1 to 9 candidates, none where nothing is scored."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 61, histories)
    scored = rng.integers(1, lengths + 1)
    counts = rng.integers(0, 10, scored.sum())
    tokens, candidates = (
        rng.integers(0, teacher.description.cells, size).astype(np.int32) for size in (lengths.sum(), counts.sum())
    )
    return Query(tokens, lengths, scored, window, candidates, counts)


def check_same_teacher(native: str, target: str, model: str) -> None:
    """Description and answers at `target` are those of the native server, whose gRPC target is given."""
    with GrpcTeacher([native]) as ours, TritonTeacher(target, model) as theirs:
        same = dataclasses.replace(theirs.description, limits=ours.description.limits)
        assert same == ours.description
        for seed, window in enumerate(WINDOWS):
            query = query_of(ours, seed, window)
            want, got = ours.score(query), theirs.score(query)
            np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)
            assert got.truncated == want.truncated
            assert (want.truncated > 0) == (window in (0, 60))  # the histories are long enough to show it


def check_wrong_teacher(target: str, model: str) -> None:
    """A request for another teacher is refused, in words that name both."""
    with TritonTeacher(target, model) as teacher:
        mine = teacher.description.digest
        teacher.description = dataclasses.replace(teacher.description, digest="f" * 64)
        with pytest.raises(TeacherMismatch, match=f"for teacher {'f' * 64}, but this is {mine}"):
            teacher.score(query_of(teacher, 0, 0, histories=2))


def check_unknown_model(target: str) -> None:
    with pytest.raises(TeacherMismatch, match=rf"{target}/nobody: .*nobody"):
        TritonTeacher(target, "nobody")
