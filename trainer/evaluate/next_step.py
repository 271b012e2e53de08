"""How well a student predicts the next road and its time on real trips, alone or fused with a teacher."""

from __future__ import annotations

from typing import Any

from trainer.assemble import load_trained, pick_device
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.batches import in_order
from trainer.data.city import City
from trainer.data.features import Network
from trainer.errors import BadInput
from trainer.examples import ExampleMaker
from trainer.guide import find_guide
from trainer.run_folder import RunFolder
from trainer.step import Objective, measure
from trainer.student.card import StudentCard
from trainer.student.hoser import HOSER
from trainer.teacher.address import NOBODY
from trainer.teacher.targets import Targets

NEXT_STEP = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "loss_next_step")


def next_step_figures(
    folder: RunFolder, city: City, split: str, fuse: float | None, address: str | None, device: str
) -> dict[str, Any]:
    """Of a run's best student on all trips of a split; `fuse`: weight of the log-probabilities of the teacher there."""
    student, config, card = load_trained(folder.best, city)
    where = pick_device(device)
    about = {"split": split, "data_fingerprint": city.meta.fingerprint, "teacher_digest": card.teacher_digest}
    if fuse is None:
        return about | _figures(student.to(where), config, card, city, split, None, 0.0)
    if address is None or address in NOBODY:
        raise BadInput("--fuse-teacher needs --teacher local:FOLDER, grpc://HOST:PORT or triton://HOST:PORT/MODEL")
    everywhere = config.model_copy(update={"distill": config.distill.model_copy(update={"positions": "all"})})
    guide = find_guide(address, everywhere, city, digest=card.teacher_digest)
    try:
        fused = {"fuse_teacher": fuse, "fused_with": guide.digest}
        return about | fused | _figures(student.to(where), config, card, city, split, guide.targets, fuse)
    finally:
        guide.close()


def _figures(
    student: HOSER, config: Config, card: StudentCard, city: City, split: str, targets: Targets | None, fuse: float
) -> dict[str, Any]:
    where = student.road2zone.device
    steps = config.trajectory_encoder_config.max_len
    maker = ExampleMaker(
        Network.of(city.road_map).to(where), where, steps, config.data.angle, Clock(), config.distill.shared_cells
    )
    objective = Objective(0.0, config.distill.temperature, card.log1p_mean, card.log1p_std)
    student.eval()
    trips = city.trips[split]
    batches = in_order(len(trips), 4 * config.optimizer_config.batch_size)
    total = measure(student, (maker.make(trips, chosen, targets=targets) for chosen in batches), objective, fuse)
    means = total.means(objective)
    return {name: means[name] for name in NEXT_STEP} | {"steps": total.steps, "choice_steps": total.choices}
