"""What the line of an epoch says, and over which time."""

from __future__ import annotations

import pytest

from trainer import progress_line
from trainer.progress_line import ProgressLine

MEANS = {"loss_next_step": 1.5, "loss_time_pred": 0.25, "loss_kl": 2.0, "loss": 1.95}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr(progress_line.time, "perf_counter", lambda: time[0])
    return time


def clock(seconds: int) -> str:
    return f"{seconds // 60:02}:{seconds % 60:02}"


def test_losses_samples_and_the_teachers_share(now: list[float]) -> None:
    with ProgressLine("epoch 1/2", steps=10, done=0, trips=1000, waited_s=7.0, shown=False) as line:
        now[0] += 2
        line.step(MEANS, trips=1128, waited_s=7.5)
        assert line.text(MEANS) == (
            "loss 1.9500 (next step 1.5000, time 0.2500, KL 2.0000), 64.0 samples/s, teacher wait 25 %"
        )


def test_rates_are_of_the_last_seconds_only(now: list[float]) -> None:
    with ProgressLine("epoch 1/2", steps=100, done=0, trips=0, waited_s=0.0, shown=False) as line:
        trips = 0
        for _ in range(30):  # slow and waiting
            now[0] += 1
            trips += 1
            line.step(MEANS, trips, waited_s=now[0] - 100)
        for _ in range(30):
            now[0] += 1
            trips += 50
            line.step(MEANS, trips, waited_s=30.0)
        assert line.text(MEANS).endswith("50.0 samples/s, teacher wait 0 %")


def test_without_a_teacher_and_after_a_step_that_was_left_out(now: list[float]) -> None:
    with ProgressLine("epoch 1/2", steps=10, done=0, trips=0, waited_s=0.0, shown=False) as line:
        now[0] += 1
        line.step({**MEANS, "loss_kl": None}, trips=64, waited_s=0.0)
        assert "time 0.2500), 64.0" in line.text({**MEANS, "loss_kl": None})
        assert line.text({}) == "64.0 samples/s, teacher wait 0 %"


def test_in_a_log_there_is_a_whole_line_now_and_then_that_tells_how_it_is_then(
    now: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with ProgressLine("epoch 1/2", steps=100, done=0, trips=0, waited_s=0.0) as line:
        for step in range(1, 10):
            now[0] += 8
            line.step({**MEANS, "loss": step}, trips=64 * step, waited_s=0.0)
            assert capsys.readouterr().err == (
                f"epoch 1/2 {step}/100 [{clock(8 * step)}<{clock(8 * (100 - step))}], loss {step}.0000 "
                "(next step 1.5000, time 0.2500, KL 2.0000), 8.0 samples/s, teacher wait 0 %\n"
                if step in (4, 8)
                else ""
            )
    assert capsys.readouterr().err == ""


def test_it_is_drawn_on_stderr(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("epoch 1/2", steps=10, done=3, trips=0, waited_s=0.0) as line:
        now[0] += 1
        line.step(MEANS, trips=64, waited_s=0.0)
        line._bar.refresh()
    said = capsys.readouterr()
    assert said.out == ""
    assert "epoch 1/2 4/10" in said.err
    assert "64.0 samples/s" in said.err
