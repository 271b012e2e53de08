"""An epoch's examples, in order, with the teacher asked some steps ahead.

Features are made when a question is asked; the answer is awaited when its step comes. What the loop waits for the
teacher is therefore only what the steps in between did not hide.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from dataclasses import dataclass

from trainer.errors import Stopped
from trainer.examples import Example, ExampleMaker, Part, Question
from trainer.teacher.targets import Target

LOOK_S = 0.2  # how often a wait looks whether the run is to stop


@dataclass(frozen=True)
class Feed:
    """Where examples come from."""

    maker: ExampleMaker
    top_k: int = 0
    ahead: int = 2  # steps that are asked about before their turn
    should_stop: Callable[[], bool] = lambda: False

    def examples(self, steps: Iterable[list[Part]]) -> Generator[list[Example], None, None]:
        """The micro-batches of every step. Raises what the targets raise, at the step that it concerns, and Stopped."""
        asking: deque[list[tuple[Question, Future[Target | None]]]] = deque()
        executor = ThreadPoolExecutor(max(self.ahead, 1) * 4, thread_name_prefix="ask")
        try:
            for parts in steps:
                asking.append([self._ask(executor, part) for part in parts])
                if len(asking) > self.ahead:
                    yield self._answered(asking.popleft())
            while asking:
                yield self._answered(asking.popleft())
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _ask(self, executor: ThreadPoolExecutor, part: Part) -> tuple[Question, Future[Target | None]]:
        question = self.maker.question(part)
        if part.targets is None:
            return question, nobody()
        return question, executor.submit(question.answer, part.targets)

    def _answered(self, step: list[tuple[Question, Future[Target | None]]]) -> list[Example]:
        with self.maker.clock("distill_kl_(teacher)"):
            for _, future in step:
                self._await(future)
        return [self.maker.example(question, future.result, self.top_k) for question, future in step]

    def _await(self, future: Future[Target | None]) -> None:
        self._check()
        while not future.done():
            with contextlib.suppress(StillWaiting):
                future.exception(timeout=LOOK_S)
            self._check()

    def _check(self) -> None:
        if self.should_stop():
            raise Stopped


def nobody() -> Future[Target | None]:
    """The answer where nobody is asked."""
    future: Future[Target | None] = Future()
    future.set_result(None)
    return future
