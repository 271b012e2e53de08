"""The training loop: epochs of optimiser steps, validation after each, checkpoints that any stop can resume from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim import Optimizer
from tqdm import tqdm

from trainer.checkpoint import Progress, load_progress, save_progress
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.batches import epoch_order, in_order
from trainer.data.city import City
from trainer.data.trips import Trips
from trainer.errors import TeacherMismatch, TeacherUnavailable, TrainingFailed
from trainer.examples import ExampleMaker
from trainer.run_folder import MetricsLog, RunFolder
from trainer.schedule import learning_rate, make_optimizer
from trainer.step import Objective, Sums, measure, optimiser_step
from trainer.student.checkpoint import StudentCard, save_student
from trainer.student.hoser import HOSER
from trainer.teacher.targets import Targets

CHECKPOINT_EVERY_S = 60.0


@dataclass
class Trainer:
    """Everything that one run works with."""

    config: Config
    city: City
    folder: RunFolder
    student: HOSER
    maker: ExampleMaker
    objective: Objective
    targets: Targets | None
    card: Callable[[int], StudentCard]  # describes the student at an optimiser step
    clock: Clock
    should_stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.optimizer: Optimizer = make_optimizer(self.student, self.config.optimizer_config)
        self.progress = Progress()

    @property
    def steps_per_epoch(self) -> int:
        settings = self.config.optimizer_config
        per_step = settings.batch_size * settings.accum_steps
        return -(-len(self.city.trips["train"]) // per_step)

    def resume(self) -> None:
        """Goes on where the last checkpoint stands, or begins where there is none yet. Raises BadInput."""
        if self.folder.last.exists():
            self.progress = load_progress(self.folder.last, self.student, self.optimizer)
            self.clock.seconds.update(self.progress.seconds)

    def run(self) -> bool:
        """Trains to the end; False when a stop was asked for. Saves the last whole step, also when a teacher fails."""
        log = MetricsLog(self.folder.root / "metrics.jsonl", self.progress.step)
        self.save()
        try:
            while self.progress.epoch < self.config.optimizer_config.max_epoch:
                if not self._train_epoch(log):
                    self.save()
                    return False
                self._finish_epoch(log)
            return True
        except (TeacherUnavailable, TeacherMismatch, TrainingFailed) as error:
            self.save()
            hint = "" if isinstance(error, TrainingFailed) else ", --resume continues"
            error.args = (f"{error}; training stopped at step {self.progress.step}{hint}",)
            raise
        finally:
            log.close()

    def save(self) -> None:
        """Writes the checkpoint that a resumed run starts from."""
        self.progress.seconds = dict(self.clock.seconds)
        save_progress(self.folder.last, self.student, self.optimizer, self.progress)

    def _train_epoch(self, log: MetricsLog) -> bool:
        settings, progress = self.config.optimizer_config, self.progress
        self.student.train()
        per_step = settings.batch_size * settings.accum_steps
        order = epoch_order(len(self.city.trips["train"]), per_step, self.config.training.seed, progress.epoch)
        saved_at = time.monotonic()
        with self._bar(f"epoch {progress.epoch + 1}/{settings.max_epoch}", len(order), progress.epoch_step) as bar:
            for chosen in order[progress.epoch_step :]:
                if self.should_stop():
                    return False
                self._step(chosen, bar, log)
                if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
        return True

    def _step(self, chosen, bar: tqdm, log: MetricsLog) -> None:  # type: ignore[no-untyped-def, type-arg]
        settings, progress = self.config.optimizer_config, self.progress
        trips, top_k = self.city.trips["train"], self.config.data.candidate_top_k
        before = dict(self.clock.seconds)
        start = time.perf_counter()
        micro = [chosen[i : i + settings.batch_size] for i in range(0, len(chosen), settings.batch_size)]
        examples = [self.maker.make(trips, part, top_k=top_k, targets=self.targets) for part in micro]
        lr = learning_rate(settings, progress.step, settings.max_epoch * self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums = optimiser_step(self.student, self.optimizer, examples, self.objective, self.clock)
        progress.epoch_step += 1
        progress.step += 1
        progress.epoch_sums.add(sums)
        means = {name: value for name, value in sums.means(self.objective).items() if name.startswith("loss")}
        bar.update()
        bar.set_postfix({name: f"{value:.4f}" for name, value in means.items() if value is not None}, refresh=False)
        if progress.step % self.config.profiling.log_interval == 0:
            elapsed = time.perf_counter() - start
            log.write(progress.step, means | {"lr": lr, "epoch": progress.epoch} | self._profile(before, elapsed))

    def _profile(self, before: dict[str, float], elapsed: float) -> dict[str, float]:
        """Milliseconds of each part of one step, under the research code's names."""
        if not self.config.profiling.enable:
            return {}
        parts = ("data_wait", "data_transfer", "hoser_forward", "distill_kl_(teacher)", "backward_pass")
        spent = {
            f"perf/{part}_ms": 1000 * (self.clock.seconds[part] - before.get(part, 0.0))
            for part in (*parts, "optimizer_step")
        }
        return spent | {"perf/total_step_time_ms": 1000 * elapsed, "perf/iter_per_sec": 1 / elapsed}

    def _finish_epoch(self, log: MetricsLog) -> None:
        """Validates, keeps the best student, and moves on to the next epoch as one saved step."""
        progress = self.progress
        with self.clock("validation"):
            found = self.measure(self.city.trips["val"]).means(self.objective)
        accuracy = found["next_step_accuracy"] or 0.0
        train = {f"train/{name}": value for name, value in progress.epoch_sums.means(self.objective).items()}
        val = {"val/next_step_acc": accuracy, "val/time_pred_mape": found["mape_log1p"]}
        val |= {f"val/{name}": value for name, value in found.items() if name != "loss_kl"}
        sums = progress.epoch_sums
        counts = {name: getattr(sums, name) for name in ("kl_skipped", "truncated", "unlabelled")}
        tied = {"tied_share": sums.tied / sums.kl_steps if sums.kl_steps else None}
        log.write(progress.step, {"epoch": progress.epoch} | train | val | counts | tied)
        if accuracy > progress.best:
            progress.best, progress.best_epoch = accuracy, progress.epoch
            save_student(self.folder.best, self.student.state_dict(), self.card(progress.step))
        tqdm.write(
            f"epoch {progress.epoch + 1}: train loss {train['train/loss']:.4f}, validation accuracy {accuracy:.4f}, "
            f"at choices {found['choice_accuracy'] or 0:.4f}, time MAPE {found['mape_log1p']:.4f}"
        )
        progress.epoch, progress.epoch_step, progress.epoch_sums = progress.epoch + 1, 0, Sums()
        self.save()

    def measure(self, trips: Trips, targets: Targets | None = None) -> Sums:
        """All figures over whole trips, without a step."""
        self.student.eval()
        total = Sums()
        for chosen in in_order(len(trips), 4 * self.config.optimizer_config.batch_size):
            total.add(measure(self.student, self.maker.make(trips, chosen, targets=targets), self.objective))
        self.student.train()
        return total

    def _bar(self, title: str, total: int, done: int) -> tqdm:  # type: ignore[type-arg]
        return tqdm(desc=title, total=total, initial=done, unit=" steps", disable=None, leave=False)


def set_numerics(config: Config, cpu_threads: int | None) -> None:
    """Seeds and switches that hold for the whole process."""
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    torch.manual_seed(config.training.seed)
    torch.backends.cuda.matmul.allow_tf32 = config.training.allow_tf32
    torch.backends.cudnn.benchmark = config.training.cudnn_benchmark
