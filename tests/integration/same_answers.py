"""What a teacher says over the Open Inference Protocol, whoever serves it, against what it says over its own."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest

from trainer.errors import TeacherMismatch
from trainer.teacher.address import connect
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.places import Place
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Description, Query, TripQuery
from trainer.teacher.triton import TritonEndpoint

WINDOWS = (0, 1, 5, 47, 60)  # the block has room for 47 tokens


def reach(address: str, **patience: Any) -> Pool:
    """The teacher at an address."""
    pool = connect(address, Patience(**patience))
    assert pool is not None
    return pool


def query_of(teacher: Description, seed: int, window: int, histories: int = 40) -> Query:
    """Histories of 1 to 60 tokens with 1 to 9 candidates, none where nothing is scored."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 61, histories)
    scored = rng.integers(1, lengths + 1)
    counts = rng.integers(0, 10, scored.sum())
    tokens, candidates = (
        rng.integers(0, teacher.cells, size).astype(np.int32) for size in (lengths.sum(), counts.sum())
    )
    return Query(tokens, lengths, scored, window, candidates, counts)


def check_same_teacher(native: str, target: str, model: str) -> None:
    """Description and answers at `target` are those of the native server, whose gRPC target is given."""
    with reach(f"grpc://{native}") as ours, reach(f"triton://{target}/{model}") as theirs:
        same = dataclasses.replace(theirs.description, limits=ours.description.limits)
        assert same == ours.description
        for seed, window in enumerate(WINDOWS):
            query = query_of(ours.description, seed, window)
            want, got = ours.score(query), theirs.score(query)
            np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)
            assert got.truncated == want.truncated
            assert (want.truncated > 0) == (window in (0, 60))  # the histories are long enough to show it
        trips = TripQuery(query.tokens, query.lengths)
        ours_found, theirs_found = ours.likelihood(trips), theirs.likelihood(trips)
        np.testing.assert_allclose(theirs_found.log_likelihoods, ours_found.log_likelihoods, rtol=1e-6)
        np.testing.assert_array_equal(theirs_found.token_counts, ours_found.token_counts)
        assert theirs_found.truncated == ours_found.truncated > 0


def check_wrong_teacher(target: str, model: str) -> None:
    """A request for another teacher is refused, in words that name both."""
    endpoint = TritonEndpoint(Place(target), model)
    with contextlib.closing(endpoint):
        mine = endpoint.describe(20)
        endpoint.description = dataclasses.replace(mine, digest="f" * 64)
        with pytest.raises(EndpointError, match=f"for teacher {'f' * 64}, but this is {mine.digest}") as raised:
            endpoint.score(query_of(mine, 0, 0, histories=2), 20)
    assert raised.value.trouble is Trouble.OTHER


def check_unknown_model(target: str) -> None:
    with pytest.raises(TeacherMismatch, match=rf"{target}/nobody: .*nobody"):
        reach(f"triton://{target}/nobody")
