"""`teacher triton-repo` on a real Triton server, asked by stock clients and by the trainer."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as oip
import tritonclient.grpc.aio as oip_aio
import tritonclient.http as oip_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from teacher_server.rows import ScoreWork
from teacher_server.triton.repository import TritonSettings, write_repository
from tests.integration.line import Line
from tests.integration.runs import assert_close, epochs, train
from tests.integration.same_answers import check_same_teacher, check_unknown_model, check_wrong_teacher
from tests.integration.triton_server import START_SECONDS, RunningTriton, start, triton
from tests.serving import RunningTeacher, tiny_artifact
from tests.teacher_server.dense_clients import OF_TRIPS
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    CELLS,
    dense_arrays_of,
    oracle,
    tiny_model,
    trip_arrays_of,
    trip_oracle,
    trips_of,
    work_of,
)

pytestmark = pytest.mark.system
TINY, CITY = "tiny", "city"  # the server's models
MODEL = tiny_model()
Tensors = Mapping[str, NDArray[np.int32]]


@pytest.fixture(scope="module")
def server(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """One server with the teacher that the oracle knows and with the city's."""
    folder = tmp_path_factory.mktemp("triton")
    tiny_artifact(folder / "artifact")
    write_repository(folder / "artifact", folder / TINY, TritonSettings(TINY, max_batch_size=3000, max_queue_size=40))
    write_repository(line.teacher, folder / CITY, TritonSettings(CITY))
    with triton(folder / "log", folder / TINY, folder / CITY) as running:
        yield running


@pytest.fixture
def client(server: RunningTriton) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(server.grpc) as opened:
        yield opened


def random_work(seed: int) -> ScoreWork:
    """Works of many shapes: 1 to 4 histories of 1 to 18 tokens, 1 to 64 candidates."""
    rng = np.random.default_rng(seed)
    widest = int(rng.choice([1, 3, 8, 64]))

    def cells(most: int) -> list[int]:
        return rng.integers(0, CELLS, rng.integers(1, most + 1)).tolist()

    histories = [cells(BLOCK_SIZE + 6) for _ in range(rng.integers(1, 5))]
    scored = [[cells(widest) for _ in range(rng.integers(1, len(history) + 1))] for history in histories]
    return work_of(histories, scored, window=int(rng.choice([0, 1, 3, BLOCK_SIZE])))


def inputs_of(tensors: Tensors, library: ModuleType, **how: bool) -> list[Any]:
    inputs = []
    for name, tensor in tensors.items():
        made = library.InferInput(name, list(tensor.shape), "INT32")
        made.set_data_from_numpy(tensor, **how)
        inputs.append(made)
    return inputs


def check_answer(log_probs: NDArray[Any], work: ScoreWork, tolerance: float = 1e-5) -> None:
    counts = dense_arrays_of(work)["CANDIDATE_COUNT"]
    filled = np.arange(log_probs.shape[2]) < counts[..., None]
    assert log_probs.shape[:2] == counts.shape
    np.testing.assert_allclose(log_probs[filled], oracle(MODEL, work), atol=tolerance)
    assert np.isneginf(log_probs[~filled]).all()


def test_the_answers_are_the_oracles(client: oip.InferenceServerClient) -> None:
    for seed in range(20):
        work = random_work(seed)
        answer = client.infer(TINY, inputs_of(dense_arrays_of(work, junk=-1), oip))
        check_answer(answer.as_numpy("LOG_PROBS"), work)


def test_whole_trips_are_judged(client: oip.InferenceServerClient) -> None:
    trips = [[1, 2, 3], [4], [5] * (BLOCK_SIZE + 6)]
    sums, counts = trip_oracle(MODEL, trips)
    tensors = inputs_of(trip_arrays_of(trips_of(trips), junk=-1), oip)
    answer = client.infer(TINY, tensors, outputs=[oip.InferRequestedOutput(name) for name in OF_TRIPS])
    np.testing.assert_allclose(answer.as_numpy("LOG_LIKELIHOOD")[:, 0], sums, rtol=1e-6)
    assert answer.as_numpy("TOKEN_COUNT")[:, 0].tolist() == counts
    (one,) = client.infer(TINY, tensors, outputs=[oip.InferRequestedOutput("TOKEN_COUNT")]).get_response().outputs
    assert one.name == "TOKEN_COUNT"
    with pytest.raises(InferenceServerException, match="input CANDIDATES is missing"):
        client.infer(TINY, tensors)


@pytest.mark.parametrize("binary", [True, False])
def test_over_http(server: RunningTriton, binary: bool) -> None:
    work = random_work(1)
    outputs = [oip_http.InferRequestedOutput("LOG_PROBS", binary_data=binary)]
    with oip_http.InferenceServerClient(server.http) as client:
        tensors = inputs_of(dense_arrays_of(work), oip_http, binary_data=binary)
        check_answer(client.infer(TINY, tensors, outputs=outputs).as_numpy("LOG_PROBS"), work)


def test_half_precision_by_parameter(client: oip.InferenceServerClient) -> None:
    work = random_work(2)
    answer = client.infer(TINY, inputs_of(dense_arrays_of(work), oip), parameters={"datatype": "FP16"})
    assert answer.as_numpy("LOG_PROBS").dtype == np.float16
    check_answer(answer.as_numpy("LOG_PROBS"), work, tolerance=2e-2)


def test_scored_and_window_are_optional(client: oip.InferenceServerClient) -> None:
    work = work_of([[1, 2, 3], [4]], [[[5, 6]], [[7, 8, 9]]])
    tensors = {name: value for name, value in dense_arrays_of(work).items() if name not in ("SCORED", "WINDOW")}
    check_answer(client.infer(TINY, inputs_of(tensors, oip)).as_numpy("LOG_PROBS"), work)


def test_what_the_protocol_says_of_urgency_is_understood(client: oip.InferenceServerClient) -> None:
    work = random_work(5)
    answer = client.infer(TINY, inputs_of(dense_arrays_of(work), oip), priority=2, timeout=30_000_000)
    check_answer(answer.as_numpy("LOG_PROBS"), work)


def test_a_dimension_may_not_be_left_out(client: oip.InferenceServerClient) -> None:
    """Unlike at our own server: a Triton tensor has a fixed number of dimensions."""
    tensors = dense_arrays_of(work_of([[1]], [[[2, 3]]]))
    tensors["CANDIDATES"] = tensors["CANDIDATES"][:, 0]
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'CANDIDATES'"):
        client.infer(TINY, inputs_of(tensors, oip))


def test_limits_hold(client: oip.InferenceServerClient) -> None:
    """100 positions beyond the block of 48 tokens, in each of 4,000 histories: a row of 48 tokens for every one."""
    rows = np.ones((4000, 1), np.int32)
    tensors = {
        "HISTORY": rows.repeat(148, 1),
        "HISTORY_LENGTH": rows * 148,
        "SCORED": rows * 100,
        "WINDOW": rows * 0,
        "CANDIDATES": rows[..., None].repeat(100, 1).repeat(2, 2),
        "CANDIDATE_COUNT": rows.repeat(100, 1) * 2,
    }
    with pytest.raises(InferenceServerException, match=r"19200000 row tokens .* and 16777216 are allowed") as caught:
        client.infer(CITY, inputs_of(tensors, oip))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


Asked = Sequence[tuple[Tensors, Mapping[str, str]]]


async def all_at_once(
    server: RunningTriton, asked: Asked, blockers: int = 1
) -> list[NDArray[Any] | InferenceServerException]:
    """Answers to requests that wait together: large ones keep the model busy until all have arrived."""
    histories = np.random.default_rng(0).integers(0, CELLS, (3000, BLOCK_SIZE)).tolist()  # they share little
    blocker = dense_arrays_of(work_of(histories, [[[2, 3]] * 5] * len(histories), window=BLOCK_SIZE - 2))
    async with oip_aio.InferenceServerClient(server.grpc) as client:

        async def answer(tensors: Tensors, parameters: Mapping[str, str]) -> NDArray[Any] | InferenceServerException:
            try:
                inputs = inputs_of(tensors, oip_aio)
                result = await client.infer(TINY, inputs, parameters=dict(parameters), client_timeout=60)
            except InferenceServerException as error:
                return error
            log_probs: NDArray[Any] = result.as_numpy("LOG_PROBS")
            return log_probs

        blocked = [asyncio.create_task(answer(blocker, {})) for _ in range(blockers)]
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(*(answer(*each) for each in asked))
        assert all(isinstance(large, np.ndarray) for large in await asyncio.gather(*blocked))
        return answers


def counts(client: oip.InferenceServerClient) -> tuple[int, int, dict[int, int]]:
    """Histories inferred, executions, and executions by their number of histories."""
    (model,) = client.get_inference_statistics(TINY).model_stats
    sizes = {batch.batch_size: batch.compute_infer.count for batch in model.batch_stats}
    return model.inference_count, model.execution_count, sizes


def test_requests_of_different_shapes_are_merged(client: oip.InferenceServerClient, server: RunningTriton) -> None:
    works = [random_work(seed) for seed in range(30)]
    tensors = [dense_arrays_of(work) for work in works]
    assert len({tuple(array.shape for array in each.values()) for each in tensors}) > 20
    inferred, executed, sizes = counts(client)
    answers = asyncio.run(all_at_once(server, [(each, {}) for each in tensors]))
    for work, answer in zip(works, answers, strict=True):
        assert isinstance(answer, np.ndarray), answer
        check_answer(answer, work)
    inferred_after, executed_after, sizes_after = counts(client)
    histories = sum(len(work.lengths) for work in works)
    assert inferred_after - inferred == 3000 + histories
    assert executed_after - executed <= 5  # the large request, and the 30 others in very few
    merged = [size for size, count in sizes_after.items() if count > sizes.get(size, 0) and size < 3000]
    assert max(merged) > histories / 2


def test_a_wrong_request_fails_alone(server: RunningTriton) -> None:
    good, wrong = random_work(3), work_of([[CELLS]], [[[1, 2]]])
    late = dense_arrays_of(good)
    late["HISTORY_LENGTH"] = late["HISTORY_LENGTH"] + 99
    asked: Asked = [
        (dense_arrays_of(good), {}),
        (dense_arrays_of(wrong), {}),
        (late, {}),
        (dense_arrays_of(good), {"digest": "0" * 64}),
        (dense_arrays_of(good), {"datatype": "BF16"}),
        (dense_arrays_of(good), {}),
    ]
    first, no_cell, too_long, wrong_teacher, no_type, last = asyncio.run(all_at_once(server, asked))
    for answer in (first, last):
        assert isinstance(answer, np.ndarray), answer
        check_answer(answer, good)
    refused = {
        (no_cell, "INVALID_ARGUMENT"): r"tokens\[0\] \(history 0\) is 20, which is no cell: cells are 0..19",
        (too_long, "INVALID_ARGUMENT"): r"HISTORY_LENGTH\[0\] is \d+: it must be in 1..",
        (wrong_teacher, "NOT_FOUND"): "the request is for teacher 0{64}, but this is ",
        (no_type, "INVALID_ARGUMENT"): "LOG_PROBS cannot be 'BF16': use FP32 or FP16",
    }
    for (error, status), words in refused.items():
        assert isinstance(error, InferenceServerException)
        assert error.status() == f"StatusCode.{status}"
        assert re.match(words, error.message()), error.message()


def test_a_full_queue_refuses(server: RunningTriton) -> None:
    """The repository was written for 40 requests that wait. Triton takes the next batches out of the queue ahead."""
    tensors = dense_arrays_of(random_work(4))
    answers = asyncio.run(all_at_once(server, [(tensors, {})] * 60, blockers=5))
    refused = [answer for answer in answers if isinstance(answer, InferenceServerException)]
    assert 10 <= len(refused) <= 25
    assert {error.status() for error in refused} == {"StatusCode.UNAVAILABLE"}
    assert all("maximum queue size" in error.message().lower() for error in refused)


def test_the_trainer_hears_the_same(server: RunningTriton, served: RunningTeacher) -> None:
    check_same_teacher(served.grpc, server.grpc, CITY)


def test_the_trainer_refuses_another_teacher_and_another_model(server: RunningTriton) -> None:
    check_wrong_teacher(server.grpc, CITY)
    check_unknown_model(server.grpc)


def test_a_run_is_the_same(line: Line, server: RunningTriton, taught_run: Path, tmp_path: Path) -> None:
    train(line, tmp_path / "run", "--teacher", f"triton://{server.grpc}/{CITY}", *epochs(2))
    assert_close(taught_run, tmp_path / "run")


def test_its_own_metrics_count_the_teacher(server: RunningTriton) -> None:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.search(rf'nv_inference_count{{model="{TINY}",version="1"}} (\d+)', text)
    assert found
    assert int(found[1]) > 0


def test_changed_weights_are_not_served(tmp_path: Path) -> None:
    tiny_artifact(tmp_path / "artifact")
    write_repository(tmp_path / "artifact", tmp_path / "repository", TritonSettings())
    weights_file = tmp_path / "repository/teacher/1/artifact/model.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    weights_file.write_bytes(content)
    process, _ = start(tmp_path / "log", tmp_path / "repository")
    try:
        assert process.wait(START_SECONDS) != 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "one of the two files was changed; export the teacher again" in (tmp_path / "log").read_text()
