"""A run as one archive."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

from trainer.bundle.archive import MANIFEST, SUMS, Manifest, Packer, chunks_of
from trainer.bundle.card import model_card
from trainer.bundle.geojson import collection
from trainer.bundle.parts import Parts
from trainer.data.roadmap import RoadMap
from trainer.errors import BadInput
from trainer.files import whole_file

CARD, GEOJSON = "MODEL_CARD.md", "generated.geojson"


def write_bundle(target: Path, parts: Parts, road_map: RoadMap | None) -> Manifest:
    """Writes the archive, whole or not at all; the road map is for a run with generated trips.

    Raises BadInput, BadLine or CannotWrite.
    """
    with whole_file(target) as partial, ZipFile(partial, "w", allowZip64=False) as archive:
        packer = Packer(archive)
        for name in sorted({*parts.digests, CARD} | ({GEOJSON} if road_map else set())):
            part = packer.add(name, _content(name, parts, road_map))
            if part.sha256 != parts.digests.get(name, part.sha256):
                raise BadInput(f"{parts.root / name}: changed while it was bundled; try again when the run is at rest")
        manifest = Manifest(
            model_digest=parts.model_digest,
            data_fingerprint=parts.origin["data_fingerprint"],
            teacher=parts.origin["teacher"],
            files=packer.files,
        )
        own = packer.add(MANIFEST, [manifest.text().encode()])
        packer.add(SUMS, [manifest.sums(own.sha256).encode()])
    return manifest


def _content(name: str, parts: Parts, road_map: RoadMap | None) -> Iterable[bytes]:
    if name == CARD:
        return [model_card(parts).encode()]
    if name == GEOJSON and road_map is not None:
        expected = parts.found["generated.json"].get("trips")
        return (piece.encode() for piece in collection(parts.root / "generated.csv", road_map, expected))
    return chunks_of(parts.root / name)
