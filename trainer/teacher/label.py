"""Fills a label store with a teacher's answers, each distinct prefix computed once; what is there is not asked again.

Whole-prefix answers go to the store as they come. A window's answer belongs to trips all over the split, so answers
are collected in a second store, beside it, until all are there. Both may be interrupted at any time.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.data.trips import Ints, ranges
from trainer.files import only_one
from trainer.progress_line import progress_bar
from trainer.teacher.layout import Steps
from trainer.teacher.protocol import Answer, Teacher
from trainer.teacher.questions import Cells, Questions, TripQuestions, WindowQuestions
from trainer.teacher.store import LabelKey, LabelStore
from trainer.teacher.subject import Subject

TRIPS_AT_ONCE = 8192  # of which values are in memory

Keep = Callable[[int, NDArray[np.float32]], None]


@dataclass(frozen=True)
class Filling:
    """One store, and how it is filled."""

    subject: Subject
    store: LabelStore
    steps: Steps
    cells: Cells
    teacher: Teacher
    in_flight: int

    def run(self) -> None:
        """Asks for what is missing. Raises TeacherUnavailable, TeacherMismatch or CannotWrite; what came is kept."""
        root, name = self.store.folder.parent, self.store.folder.name
        note = f"trainer: note: another process fills {self.store.folder}; waiting for it"
        with only_one(root / f"{name}.filling", lambda: print(note, file=sys.stderr)):
            missing = ~self.store.has(np.arange(len(self.steps.offsets) - 1))
            if missing.any() and self.subject.window:
                self._fill_windows(missing)
            elif missing.any():
                self._fill_trips(missing)
            shutil.rmtree(root / self._collected.name, ignore_errors=True)

    @property
    def _collected(self) -> LabelKey:
        """Of the store of a window's answers, which belong to trips all over the split."""
        return replace(self.subject.key, content="requests")

    def _fill_trips(self, missing: NDArray[np.bool_]) -> None:
        questions = TripQuestions(self.steps, self.cells, self.subject.teacher.block_size)

        def keep(request: int, answers: NDArray[np.float32]) -> None:
            self.store.write(questions.trips[request], questions.values(request, answers))
            self.store.sync()

        self._ask(questions, questions.requests_about(missing), keep)

    def _fill_windows(self, missing: NDArray[np.bool_]) -> None:
        questions = WindowQuestions(self.steps, self.cells, self.subject.window)
        offsets = questions.request_offsets
        collected = LabelStore.open_or_create(self.store.folder.parent, self._collected, offsets)

        def keep(request: int, answers: NDArray[np.float32]) -> None:
            collected.write(np.array([request]), answers)
            collected.sync()

        needed = questions.requests_about(missing)
        self._ask(questions, needed[~collected.has(needed)], keep)
        answers = np.full(int(offsets[-1]), np.nan, np.float16)  # the others are those of trips that are there
        answers[ranges(offsets[needed], np.diff(offsets)[needed])] = collected.read(needed)
        for first in range(0, len(missing), TRIPS_AT_ONCE):
            stop = min(first + TRIPS_AT_ONCE, len(missing))
            self.store.write(np.arange(first, stop), questions.values(first, stop, answers))
        self.store.sync()

    def _ask(self, questions: Questions, requests: Ints, keep: Keep) -> None:
        """Several requests at a time; whatever ends it, answers that have come are kept."""
        waiting: dict[Future[Answer], int] = {}
        executor = ThreadPoolExecutor(self.in_flight, thread_name_prefix="labelling")
        total = int(questions.row_tokens.sum())
        done = total - int(questions.row_tokens[requests].sum())
        title = f"labels of {self.subject.split}"
        try:
            with progress_bar(title, total, done, unit=" tokens", unit_scale=True) as bar:

                def take(finished: Future[Answer]) -> None:
                    request = waiting[finished]
                    keep(request, finished.result().log_probs)
                    del waiting[finished]
                    bar.update(int(questions.row_tokens[request]))

                for request in requests.tolist():
                    waiting[executor.submit(self.teacher.score, questions.query(request))] = request
                    if len(waiting) == self.in_flight:
                        for finished in wait(waiting, return_when=FIRST_COMPLETED).done:
                            take(finished)
                for finished in wait(waiting).done:
                    take(finished)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            for future, request in waiting.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    keep(request, future.result().log_probs)


def unanswered_steps(store: LabelStore, steps: Steps) -> int:
    """Steps of a complete store with a value that is not finite; training skips and counts them."""
    count, trips = 0, len(steps.offsets) - 1
    for first in range(0, trips, TRIPS_AT_ONCE):
        stop = min(first + TRIPS_AT_ONCE, trips)
        strange = ~np.isfinite(store.read(np.arange(first, stop)))
        if strange.any():
            degrees = steps.degrees[steps.offsets[first] : steps.offsets[stop]]
            count += len(np.unique(np.repeat(np.arange(len(degrees)), degrees)[strange]))
    return count
