"""Small teachers, random score work, and a slow, obvious oracle for its answers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from protos.teacher.v1 import teacher_pb2 as pb
from teacher_server.engine import Engine
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import ScoreWork
from teacher_server.trips import TripWork
from teacher_server.vocabulary import SpecialTokens

CELLS, BLOCK_SIZE = 20, 12
SPECIAL = SpecialTokens.after(CELLS)
WINDOWS = [0, 1, 2, 3, 7, BLOCK_SIZE - 2, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 5, 2**32 - 1]


def tiny_model(seed: int = 0, block_size: int = BLOCK_SIZE, cells: int = CELLS) -> LMTAD:
    """A random model with weights so large that every token and position matters."""
    config = ModelConfig(block_size, cells + 3, n_layer=2, n_head=2, n_embd=16)
    model = LMTAD(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4, generator=generator)
    return model.eval().requires_grad_(False)


def tiny_engine(model: LMTAD) -> Engine:
    """An engine of its own copy of the model."""
    return Engine(copy.deepcopy(model), torch.device("cpu"), torch.float32)


def packer(token_budget: int = 256) -> Packer:
    return Packer(BLOCK_SIZE, SPECIAL.sot, SPECIAL.pad, token_budget)


def work_of(
    histories: Sequence[Sequence[int]], candidates: Sequence[Sequence[Sequence[int]]], window: int = 0
) -> ScoreWork:
    """Work from lists: per history its cells, and per scored last position its candidates."""
    positions = [position for history in candidates for position in history]
    return ScoreWork(
        tokens=np.array([cell for history in histories for cell in history], np.int32),
        lengths=np.array([len(history) for history in histories], np.int64),
        scored=np.array([len(history) for history in candidates], np.int64),
        windows=np.full(len(histories), window, np.int64),
        candidates=np.array([cell for position in positions for cell in position], np.int32),
        candidate_counts=np.array([len(position) for position in positions], np.int64),
    )


@st.composite
def works(draw: st.DrawFn, max_histories: int = 4, max_length: int = BLOCK_SIZE + 6) -> ScoreWork:
    """Ragged work with every window mode, 0 to 8 candidates, repeated ones included."""
    cell = st.integers(0, CELLS - 1)
    histories = draw(st.lists(st.lists(cell, min_size=1, max_size=max_length), min_size=1, max_size=max_histories))
    scored = [draw(st.integers(0, len(history))) for history in histories]
    candidates = [draw(st.lists(st.lists(cell, max_size=8), min_size=count, max_size=count)) for count in scored]
    work = work_of(histories, candidates)
    windows = draw(st.lists(st.sampled_from(WINDOWS), min_size=len(histories), max_size=len(histories)))
    return dataclasses.replace(work, windows=np.array(windows, np.int64))


def oracle(model: LMTAD, work: ScoreWork) -> NDArray[np.float64]:
    """Each position alone: SOT and its last tokens, float64, softmax over the vocabulary, gather, renormalise."""
    model = copy.deepcopy(model).double()
    room = model.config.block_size - 1
    histories = np.split(work.tokens, np.cumsum(work.lengths)[:-1])
    candidates = iter(np.split(work.candidates, np.cumsum(work.candidate_counts)[:-1]))
    answers = []
    for history, scored, window in zip(histories, work.scored, work.windows, strict=True):
        kept = min(window or room, room)
        for t in range(len(history) - scored, len(history)):
            row = [model.config.vocab_size - 1, *history[max(t + 1 - kept, 0) : t + 1]]
            probabilities = model.logits(model(torch.tensor([row])))[0, -1].softmax(0).numpy()
            of_candidates = probabilities[next(candidates)]
            answers.append(np.log(of_candidates / of_candidates.sum()))
    return np.concatenate(answers) if answers else np.zeros(0)


def trips_of(trips: Sequence[Sequence[int]]) -> TripWork:
    """Whole trips from lists of cells."""
    cells = np.array([cell for trip in trips for cell in trip], np.int32)
    return TripWork(cells, np.array([len(trip) for trip in trips], np.int64))


def ragged_trips(max_trips: int = 6, max_length: int = BLOCK_SIZE + 6) -> st.SearchStrategy[list[list[int]]]:
    """Trips of a cell or more, some too long for the block."""
    trip = st.lists(st.integers(0, CELLS - 1), min_size=1, max_size=max_length)
    return st.lists(trip, min_size=1, max_size=max_trips)


def trip_oracle(model: LMTAD, trips: Sequence[Sequence[int]]) -> tuple[list[float], list[int]]:
    """([log-likelihood], [tokens]) of each trip alone, a token at a time: float64, softmax over the vocabulary."""
    model = copy.deepcopy(model).double()
    special = SpecialTokens.after(model.config.vocab_size - 3)
    sums, counts = [], []
    for trip in trips:
        tokens = [special.sot, *trip[-(model.config.block_size - 1) :], special.eot]
        rows = [(tokens[:t], tokens[t]) for t in range(1, len(tokens))]
        found = [model.logits(model(torch.tensor([row])))[0, -1].log_softmax(0)[wanted].item() for row, wanted in rows]
        sums.append(sum(found))
        counts.append(len(found))
    return sums, counts


def answer(engine: Engine, packer: Packer, works: Sequence[ScoreWork]) -> list[NDArray[np.float32]]:
    """What the layers under the batcher make of the works, computed together."""
    return answer_works(works, packer, engine.log_probs)


def dense_arrays_of(
    work: ScoreWork, junk: int = 0, more_slots: int = 0, more_width: int = 0
) -> dict[str, NDArray[np.int32]]:
    """The work as the tensors of an Open Inference client, `junk` in the padding."""
    batch, length = len(work.lengths), int(work.lengths.max())
    slots = max(int(work.scored.max()), 1) + more_slots
    width = max(int(work.candidate_counts.max(initial=1)), 1) + more_width
    history = np.full((batch, length), junk, np.int32)
    candidates = np.full((batch, slots, width), junk, np.int32)
    counts = np.zeros((batch, slots), np.int32)
    positions = iter(np.split(work.candidates, np.cumsum(work.candidate_counts)[:-1]))
    for b, tokens in enumerate(np.split(work.tokens, np.cumsum(work.lengths)[:-1])):
        history[b, : len(tokens)] = tokens
        for slot in range(work.scored[b]):
            cells = next(positions)
            candidates[b, slot, : len(cells)] = cells
            counts[b, slot] = len(cells)
    columns = {"HISTORY_LENGTH": work.lengths, "SCORED": work.scored, "WINDOW": work.windows.clip(max=2**31 - 1)}
    return {
        "HISTORY": history,
        "CANDIDATES": candidates,
        "CANDIDATE_COUNT": counts,
        **{name: column.astype(np.int32)[:, None] for name, column in columns.items()},
    }


def trip_arrays_of(trips: TripWork, junk: int = 0) -> dict[str, NDArray[np.int32]]:
    """Whole trips as the tensors of an Open Inference client, `junk` in the padding."""
    history = np.full((len(trips.lengths), int(trips.lengths.max())), junk, np.int32)
    history[np.arange(history.shape[1]) < trips.lengths[:, None]] = trips.tokens
    return {"HISTORY": history, "HISTORY_LENGTH": trips.lengths.astype(np.int32)[:, None]}


def message_of(work: ScoreWork, **fields: object) -> pb.ScoreRequest:
    """The work on the wire (two-byte tokens); `fields` replace or add fields of the message."""
    message = pb.ScoreRequest(
        tokens=work.tokens.astype("<u2").tobytes(),
        lengths=work.lengths.astype("<u4").tobytes(),
        scored=work.scored.astype("<u4").tobytes(),
        window=int(work.windows[0]),
        candidates=work.candidates.astype("<u2").tobytes(),
        candidate_counts=work.candidate_counts.astype("<u2").tobytes(),
    )
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def trips_message_of(trips: TripWork, **fields: object) -> pb.LikelihoodRequest:
    """Trips on the wire (two-byte tokens); `fields` replace or add fields of the message."""
    message = pb.LikelihoodRequest(
        tokens=trips.tokens.astype("<u2").tobytes(), lengths=trips.lengths.astype("<u4").tobytes()
    )
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def log_probs_of(response: pb.ScoreResponse) -> NDArray[np.float32]:
    """The answer's numbers, whichever type they travelled in."""
    dtype = {pb.FLOAT_TYPE_FLOAT32: "<f4", pb.FLOAT_TYPE_FLOAT16: "<f2"}[response.reply_type]
    return np.frombuffer(response.log_probs, dtype).astype(np.float32)
