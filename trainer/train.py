"""The training loop: epochs of optimiser steps, validation after each, checkpoints that any stop can resume from.

All that varies along a run is a function of its seed and position: the order of trips, the learning rate, dropout.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from tqdm import tqdm

from trainer.checkpoint import OWN_COUNTS, Progress, load_progress, save_progress
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.batches import cut, epoch_order, in_order
from trainer.data.city import City
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, Diverged, NotSaved, Stopped, TrainerError
from trainer.examples import Example, ExampleMaker, Part
from trainer.feed import Feed
from trainer.learner import Learner
from trainer.own_routes import OwnRoutes
from trainer.profile import OWN, STEP, TEACHER, Interval
from trainer.progress_line import ProgressLine
from trainer.run_folder import RunFolder
from trainer.schedule import learning_rate, set_learning_rate
from trainer.step import Sums, measure
from trainer.student.card import StudentCard
from trainer.student.checkpoint import save_student
from trainer.teacher.targets import Targets
from trainer.tracking import EPOCH_FIGURE, Trackers
from trainer.turns import together

T = TypeVar("T")


@dataclass
class Trainer:
    """Everything that one run works with."""

    config: Config
    city: City
    folder: RunFolder
    maker: ExampleMaker
    learner: Learner
    targets: Targets | None
    card: Callable[[int], StudentCard]  # describes the student at an optimiser step
    trackers: Trackers
    own: OwnRoutes | None = None  # None: the KL is on real trips only
    should_stop: Callable[[], bool] = lambda: False
    on_epoch: Callable[[int, float], None] = lambda epochs, accuracy: None  # after each is saved; may end the run
    how_to_go_on: str = "--resume continues"  # for the message of an error that it can be resumed from
    progress: Progress = field(default_factory=Progress)
    interval: Interval = field(init=False)  # begins with `run`

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.city.trips["train"]) // self._trips_per_step)

    @property
    def trips_done(self) -> int:
        """Trips trained on, over all epochs and sessions."""
        trips = len(self.city.trips["train"])
        return self.progress.epoch * trips + min(self.progress.epoch_step * self._trips_per_step, trips)

    @property
    def _trips_per_step(self) -> int:
        settings = self.config.optimizer_config
        return settings.batch_size * settings.accum_steps * self.learner.ranks.world

    def resume(self) -> None:
        """Goes on where the last checkpoint stands, or begins where there is none yet. Raises BadInput."""
        if self.folder.best.exists() and not self.folder.last.exists():  # an unpacked bundle
            raise BadInput(f"{self.folder.root}: has a student but no checkpoints/last.pt, so it cannot go on")
        if self.folder.last.exists():
            self.progress = load_progress(self.folder.last, self.learner)
            self.learner.clock.seconds.update(self.progress.seconds)
            if self.own:
                self.own.restore(self.progress.own_routes)

    def run(self) -> bool:
        """Trains to the end; False when a stop was asked for. Saves the last whole step, also before it raises, but
        where it raises NotSaved: the checkpoint before is what a run goes on from then.
        """
        self.interval = Interval(self.learner.clock, self.trips_done)
        self.save()
        try:
            while self.progress.epoch < self.config.optimizer_config.max_epoch:
                self._train_epoch()
                self._finish_epoch()
            return True
        except Stopped:
            self.save()
            return False
        except TrainerError as error:
            if not isinstance(error, NotSaved):
                self.save()
            hint = "" if isinstance(error, Diverged) else f", {self.how_to_go_on}"
            error.args = (f"{error}; training stopped at step {self.progress.step}{hint}",)
            raise

    def save(self) -> None:
        """Writes the checkpoint that a resumed run starts from."""
        if self.learner.ranks.first:
            self.progress.seconds = dict(self.learner.clock.seconds)
            self.progress.own_routes = self.own.state() if self.own else {}
            save_progress(self.folder.last, self.learner, self.progress)

    def _train_epoch(self) -> None:
        """The steps that the epoch still lacks. Raises Stopped, and what keeps any rank from going on."""
        progress = self.progress
        self.learner.student.train()
        saved_at = time.monotonic()
        with closing(self._examples()) as examples, self._line() as line:
            while progress.epoch_step < self.steps_per_epoch:
                with self.learner.clock(STEP):
                    figures = self._step(self._next(examples))
                self._report(*figures, line)
                # Not at an epoch's end: a run that resumed there would show the epoch's figures twice.
                within = progress.epoch_step < self.steps_per_epoch
                if within and time.monotonic() - saved_at > self.config.training.checkpoint_every_s:
                    self.save()
                    saved_at = time.monotonic()

    def _examples(self) -> Generator[list[Example], None, None]:
        """This rank's micro-batches of the epoch's remaining steps."""
        config, progress = self.config, self.progress
        trips = len(self.city.trips["train"])
        order = epoch_order(trips, self._trips_per_step, config.training.seed, progress.epoch)
        remaining = enumerate(order[progress.epoch_step :], start=progress.step)
        steps = (self._parts(step, chosen) for step, chosen in remaining)
        ahead = config.distill.prefetch if self.targets or self.own else 0
        return Feed(self.maker, config.data.candidate_top_k, ahead, self.should_stop).examples(steps)

    def _parts(self, step: int, chosen: Ints) -> list[Part]:
        """This rank's micro-batches of a step. The student's own routes take the place of real trips in the KL."""
        size, trips = self.config.optimizer_config.batch_size, self.city.trips["train"]
        asked = len(chosen) - self.own.plan.count(step) if self.own else len(chosen)
        parts = [Part(trips, some, self.targets) for some in cut(chosen[:asked], size)]
        parts += [Part(trips, some) for some in cut(chosen[asked:], size)]
        return list(self.learner.ranks.share(parts)) + (self.own.parts(step, size) if self.own else [])

    def _next(self, examples: Iterator[list[Example]]) -> list[Example]:
        """The next step's examples."""
        if self.own and self.own.due(self.progress.step):
            self._draw(self.own)
        return self._together(lambda: next(examples))

    def _draw(self, own: OwnRoutes) -> None:
        """Routes of the student as it is now."""
        step, progress = self.progress.step, self.progress
        with self.learner.clock(OWN):
            trips, reached = own.keep(step, self._together(lambda: own.draw(step, self.should_stop)))
        progress.own_trips += trips
        progress.own_reached += reached

    def _together(self, work: Callable[[], T]) -> T:
        return together(self.learner.ranks, self.maker.device, self.should_stop, work)

    def _step(self, ready: list[Example]) -> tuple[Sums, float]:
        """One optimiser step; its figures and learning rate. Raises TrainingFailed after too many bad steps."""
        settings, progress = self.config.optimizer_config, self.progress
        lr = learning_rate(settings, progress.step, settings.max_epoch * self.steps_per_epoch)
        set_learning_rate(self.learner.optimizer, lr)
        seed_step(self.config.training.seed, progress.step, self.learner.ranks.rank)
        sums, taken = self.learner.step(ready)
        progress.epoch_step += 1
        progress.step += 1
        progress.epoch_sums.add(sums)
        progress.kl_missed += sums.kl_missed
        progress.own_steps += sums.own_steps
        if not taken:
            self._count_bad_step()
        return sums, lr

    def _count_bad_step(self) -> None:
        self.progress.bad_steps += 1
        bad, most = self.progress.bad_steps, self.config.training.max_bad_steps
        if bad > most:
            raise Diverged(
                f"the loss or its gradient was not finite in {bad} steps (training.max_bad_steps is {most}); "
                "those steps were left out"
            )

    def _report(self, sums: Sums, lr: float, line: ProgressLine) -> None:
        progress = self.progress
        found = sums.means(self.learner.objective) if sums.steps else {}  # nothing is known of a step that was left out
        means = {name: value for name, value in found.items() if name.startswith("loss")}
        line.step(means, self.trips_done, self.learner.clock.seconds[TEACHER])
        self.interval.step()
        if progress.step % self.config.profiling.log_interval == 0:
            profile = self.interval.figures(self.trips_done) if self.config.profiling.enable else {}
            self.trackers.write(
                progress.step, means | {"lr": lr, "epoch": progress.epoch} | profile | self._counts_so_far()
            )

    def _counts_so_far(self) -> dict[str, int]:
        names = ("kl_missed", "bad_steps") + (OWN_COUNTS if self.own else ())
        return {name: getattr(self.progress, name) for name in names}

    def _finish_epoch(self) -> None:
        """Validates, keeps the best student, and moves on to the next epoch as one saved step. Raises Stopped."""
        progress, learner = self.progress, self.learner
        with learner.clock("validation"):
            found = self.measure(self.city.trips["val"]).means(learner.objective)
        accuracy = found["next_step_accuracy"] or 0.0
        train = {f"train/{name}": value for name, value in progress.epoch_sums.means(learner.objective).items()}
        val = {EPOCH_FIGURE: accuracy, "val/time_pred_mape": found["mape_log1p"]}
        val |= {f"val/{name}": value for name, value in found.items() if name != "loss_kl"}
        sums = progress.epoch_sums
        counts = {name: getattr(sums, name) for name in ("kl_skipped", "truncated", "unlabelled")}
        tied = {"tied_share": sums.tied / sums.kl_steps if sums.kl_steps else None}
        self.trackers.write(
            progress.step, {"epoch": progress.epoch} | train | val | counts | tied | self._counts_so_far()
        )
        if accuracy > progress.best:
            if learner.ranks.first:
                save_student(self.folder.best, learner.student.state_dict(), self.card(progress.step))
            progress.best, progress.best_epoch = accuracy, progress.epoch  # when it is there: a resumed run compares
        self._say(
            f"epoch {progress.epoch + 1}: train loss {train['train/loss']:.4f}, validation accuracy {accuracy:.4f}, "
            f"at choices {found['choice_accuracy'] or 0:.4f}, time MAPE {found['mape_log1p']:.4f}"
        )
        progress.epoch, progress.epoch_step, progress.epoch_sums = progress.epoch + 1, 0, Sums()
        self.save()
        self.on_epoch(progress.epoch, accuracy)

    def measure(self, trips: Trips, targets: Targets | None = None) -> Sums:
        """All figures over whole trips of all ranks, without a step; the clock of the steps stands still.

        Raises Stopped when any rank is to stop, and what the targets raise.
        """
        learner, maker, device = self.learner, replace(self.maker, clock=Clock()), self.maker.device
        learner.student.eval()
        batches = learner.ranks.share(list(in_order(len(trips), 4 * self.config.optimizer_config.batch_size)))
        steps = Feed(maker, ahead=0, should_stop=self.should_stop).examples([Part(trips, b, targets)] for b in batches)
        with closing(steps):
            examples = itertools.chain.from_iterable(steps)
            total = self._together(lambda: measure(learner.student, examples, learner.objective))
        learner.student.train()
        values = torch.tensor([getattr(total, f.name) for f in fields(Sums)], dtype=torch.float64, device=device)
        return Sums.of(learner.ranks.sum(values).tolist())

    def _say(self, line: str) -> None:
        if self.learner.ranks.first:
            tqdm.write(line)

    def _line(self) -> ProgressLine:
        progress, waited = self.progress, self.learner.clock.seconds[TEACHER]
        title = f"epoch {progress.epoch + 1}/{self.config.optimizer_config.max_epoch}"
        return ProgressLine(
            title, self.steps_per_epoch, progress.epoch_step, self.trips_done, waited, self.learner.ranks.first
        )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Random numbers of a step (dropout) depend on seed, step and rank only, so that a resumed run repeats them."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank & (1 << 63) - 1)


def set_numerics(config: Config, cpu_threads: int | None) -> None:
    """Seeds and switches that hold for the whole process."""
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    torch.manual_seed(config.training.seed)
    torch.backends.cuda.matmul.allow_tf32 = config.training.allow_tf32
    torch.backends.cudnn.benchmark = config.training.cudnn_benchmark
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for before the first product
        torch.use_deterministic_algorithms(True)
