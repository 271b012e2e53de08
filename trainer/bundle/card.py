"""The model card of a bundle: what the student is, what made it, its figures, its limits, how to load it."""

from __future__ import annotations

from typing import Any

import yaml

from trainer.bundle.parts import BEST, Parts
from trainer.run_folder import IMPORTED

# Figures of summary.json and what each is a mean over.
OVER = {
    "next_step_accuracy": "test_steps",
    "choice_accuracy": "choice_steps",
    "mape_log1p": "test_steps",
    "mape_seconds": "test_steps",
    "loss_next_step": "test_steps",
    "kl": "steps_scored",
}
TEACHERS = {
    "none": "none: plain HOSER",
    "uniform": "the uniform distribution: a control, no teacher",
    IMPORTED: "unknown: an imported checkpoint of the original HOSER",
}


def model_card(parts: Parts) -> str:
    """Markdown; every figure stands with its split and its count."""
    sections = (_what(parts), _figures(parts), _trips(parts), LIMITS, _loading(), _settings(parts))
    return "\n\n".join(sections) + "\n"


def _what(parts: Parts) -> str:
    origin, summary = parts.origin, parts.found.get("summary.json", {})
    rows = {
        "student": f"SHA-256 `{parts.model_digest}`, {parts.weights:,} weights and features",
        "data": f"fingerprint `{origin['data_fingerprint']}`",
        "teacher": TEACHERS.get(origin["teacher"], f"digest `{origin['teacher']}`"),
        "optimiser steps": f"{parts.student.step} (the best student's)",
        "training": _state(summary, origin),
        "versions": f"hoser-distill {origin.get('version')}{_commit(origin)}, torch {origin.get('torch')}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# HOSER student {parts.model_digest[:16]}\n\n"
        "A route generator for one road network. Of a trip so far and a destination it tells the probabilities of the "
        "roads that can\nfollow, and the seconds that each takes; a search makes whole routes of that.\n\n"
        f"| | |\n|---|---|\n{table}"
    )


def _commit(origin: dict[str, Any]) -> str:
    return f" (commit {origin['commit']})" if origin.get("commit") else ""


def _state(summary: dict[str, Any], origin: dict[str, Any]) -> str:
    if summary:
        return f"finished after {summary.get('optimiser_steps')} steps; best epoch {summary.get('best_epoch')}, from 0"
    return "elsewhere" if origin["teacher"] == IMPORTED else "**not finished**"


def _figures(parts: Parts) -> str:
    summary = parts.found.get("summary.json")
    text = "## Figures\n"
    if summary:
        rows = [
            f"| `{name}` | {_number(summary[name])} | {summary.get(count)} steps |"
            for name, count in OVER.items()
            if summary.get(name) is not None
        ]
        text += "\nNext road and its time, on the `test` trips (`summary.json`):\n\n"
        text += "| figure | mean | over |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    for file in ("evaluation.json", "evaluation.fused.json"):
        if file in parts.found:
            text += _evaluation(file, parts.found[file])
    return text.rstrip() if summary or "\n\n" in text else text + "\nNone: the student was not tested."


def _evaluation(file: str, found: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {_number(value)} |" for name, value in found.items() if type(value) in (int, float)]
    judged = f", generated trips compared with them: {found['generated_trips']}" if "generated_trips" in found else ""
    title = (
        f"\nOn the `{found.get('split')}` trips of data `{str(found.get('data_fingerprint'))[:16]}`{judged} (`{file}`):"
    )
    return title + "\n\n| figure or count | value |\n|---|---|\n" + "\n".join(rows) + "\n"


def _trips(parts: Parts) -> str:
    about = parts.found.get("generated.json")
    if about is None:
        return "## Generated trips\n\nNone in this bundle."
    settings = ", ".join(f"{name} {about[name]}" for name in ("search", "max_expansions", "seed") if name in about)
    return (
        f"## Generated trips\n\n{about.get('trips')} trips, {about.get('reached')} reached their destination; origins "
        f"and destinations of {about.get('od')}; {settings}.\n"
        "`generated.csv` holds them as road ids and times, `generated.geojson` as lines (RFC 7946; `id` is "
        "the CSV's row, from 0)."
    )


LIMITS = """## Limits

- For the road network that it was trained on, and no other: a data folder with other roads or zones is refused.
- Times are as the training trips have them: of that city, that year, in the clock that the data used.
- A route that is not reached ends at the road nearest to its destination that the search found; `reached` tells.
- Generated trips come from a model of many trips. How far single training trips show in them was not examined."""


def _loading() -> str:
    return f"""## How to load

```sh
sha256sum -c SHA256SUMS                             # or, before unpacking: trainer bundle --verify FILE.zip
trainer generate FOLDER --data CITY --out new.csv   # FOLDER: where this archive is unpacked; CITY: the data folder
trainer evaluate FOLDER --data CITY --out new.json
trainer export FOLDER --out best.pt                 # for the original HOSER
```

`{BEST}` is a safetensors file; its header holds the settings. `trainer train --resume` needs the run's
`checkpoints/last.pt`, which is not in here."""


def _settings(parts: Parts) -> str:
    said = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in parts.origin["config"].items()
        if isinstance(values, dict)
    }
    kept = {section: values for section, values in said.items() if values}
    return f"## Settings\n\n```yaml\n{yaml.safe_dump(kept, sort_keys=False)}```"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
