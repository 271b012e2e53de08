"""The line that tells how far work is, while it goes; of an epoch also its losses."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn

from tqdm import tqdm

WINDOW_S = 10.0  # rates are over so many last seconds
REFRESH_S = 0.2
REFRESH_LOG_S = 30.0  # where nobody watches: stderr is a file
LOSSES = {"loss_next_step": "next step", "loss_time_pred": "time", "loss_kl": "KL"}


def progress_bar(title: str, total: int, done: int, **how: Any) -> tqdm[NoReturn]:
    """Of `total` some are `done`; `how` it looks is tqdm's. Where nobody watches, a line every REFRESH_LOG_S."""
    watched = sys.stderr.isatty()
    every = REFRESH_S if watched else REFRESH_LOG_S
    return tqdm(
        desc=title,
        total=total,
        initial=done,
        file=sys.stderr if watched else Lines(),
        mininterval=every,
        miniters=1,  # the clock alone decides
        delay=0 if watched else every,
        **how,
    )


class Lines:
    """stderr where it is a file: each line has an end, for what collects logs shows no other."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


class ProgressLine:
    """Losses, samples per second, and the share of time that waits for the teacher."""

    def __init__(self, title: str, steps: int, done: int, trips: int, waited_s: float, shown: bool = True) -> None:
        """`steps` of the epoch of which some are `done`; trips trained on and seconds waited so far."""
        self._window = deque([(time.perf_counter(), trips, waited_s)])
        self._bar = progress_bar(
            title,
            steps,
            done,
            disable=not shown,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )

    def step(self, means: Mapping[str, float | None], trips: int, waited_s: float) -> None:
        """One step more; `means` are its losses, by name, the other two count up."""
        now = time.perf_counter()
        self._window.append((now, trips, waited_s))
        while len(self._window) > 2 and now - self._window[0][0] > WINDOW_S:
            self._window.popleft()
        self._bar.set_postfix_str(self.text(means), refresh=False)
        self._bar.update()

    def text(self, means: Mapping[str, float | None]) -> str:
        """`loss 2.31 (next step 1.90, time 0.31, KL 0.98), 1,203 samples/s, teacher wait 2 %`."""
        (begun, trips, waited), (now, all_trips, all_waited) = self._window[0], self._window[-1]
        seconds = max(now - begun, 1e-9)
        parts = ", ".join(f"{LOSSES[name]} {means[name]:.4f}" for name in LOSSES if means.get(name) is not None)
        loss = f"loss {means['loss']:.4f} ({parts}), " if means else ""
        rate, share = (all_trips - trips) / seconds, (all_waited - waited) / seconds
        return f"{loss}{rate:,.1f} samples/s, teacher wait {100 * share:.0f} %"

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
