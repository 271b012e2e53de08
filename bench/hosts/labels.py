"""A complete label store that was made while teachers died is that of a quiet day: training from it is bit for bit the
same, without any teacher."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from bench.hosts.stage import EPOCHS, RETURN_S, START_S, Stage
from tests.integration.runs import assert_equal, epochs


def labels(stage: Stage) -> dict[str, Any]:
    """What `trainer label` needed while one teacher was killed and another one cut off."""
    quiet, disturbed = (stage.folder / name for name in ("labels-quiet", "labels-disturbed"))
    calm, host = stage.trainers
    stage.do(calm, *stage.label_words(quiet))
    killed, cut = stage.teachers[:2]
    labelling = host.popen(*stage.label_words(disturbed), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        _wait_for_an_answer(stage, labelling)
        killed.server.kill()
        cut.host.cut()
        errors = labelling.communicate(timeout=START_S + 10 * RETURN_S)[1]
    finally:
        labelling.kill()
        labelling.wait()
        cut.host.heal()
    assert labelling.returncode == 0, errors
    runs = [
        stage.trained(where, f"from-{folder.name}", "labels", "--labels", str(folder), *epochs(EPOCHS))
        for where, folder in ((calm, quiet), (host, disturbed))
    ]
    assert_equal(*runs)
    return {"bit_for_bit": True}


def _wait_for_an_answer(stage: Stage, labelling: subprocess.Popen[str]) -> None:
    before, deadline = _answers(stage), time.monotonic() + START_S
    while _answers(stage) == before:
        assert labelling.poll() is None, "the labels were there before anything happened"
        assert time.monotonic() < deadline, "nobody was asked"
        time.sleep(0.1)


def _answers(stage: Stage) -> int:
    return sum(teacher.answered() for teacher in stage.teachers)
