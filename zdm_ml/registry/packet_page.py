"""The packet as one page: no file beside it, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.evaluation.overlay import mixed
from zdm_ml.evaluation.saliency import Grey, heat_map
from zdm_ml.params import CostParams
from zdm_ml.registry.packet_plots import curves, pareto_picture

if TYPE_CHECKING:
    from zdm_ml.registry.evidence import Exhibit

TEMPLATE = "packet.html.j2"
SIDE = 170
MOST_PICTURES = 24


def render(packet: Mapping[str, Any], exhibit: Exhibit | None) -> str:
    """Return the page as HTML; of many errors, the first `MOST_PICTURES` are shown."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((files(__package__) / TEMPLATE).read_text("utf-8"))
    cost = CostParams(**packet["costs"])
    return template.render(
        packet=packet,
        curves=curves(exhibit, packet["figures"], cost) if exhibit else None,
        pareto=pareto_picture(
            packet["leaderboard"], packet["version"]["model_name"], cost.currency
        ),
        disagreements=_shown(exhibit, packet["disagreements"]),
        worst_errors=_shown(exhibit, packet["worst_errors"][:MOST_PICTURES]),
        most=MOST_PICTURES,
    )


def _shown(exhibit: Exhibit | None, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if exhibit is None:
        return []
    rows = {row.path: row for row in exhibit.rows}
    return [{**case, **_pictures(exhibit, rows[case["path"]])} for case in cases]


def _pictures(exhibit: Exhibit, row: Row) -> dict[str, str]:
    """Return the image, `src`, and the challenger's heat map on it, `heat`; empty unlicensed."""
    from zdm_ml.registry.evidence import read_image

    image = read_image(exhibit.folder, row)
    scale = SIDE / max(image.shape)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    found = {"src": _data_uri(_shrunk(image, size)), "heat": ""}
    if exhibit.challenger.map_licence.licensed:
        heat = heat_map(exhibit.challenger.net, image)
        found["heat"] = _data_uri(mixed(image, heat, size))
    return found


def _shrunk(image: Grey, size: tuple[int, int]) -> Grey:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _data_uri(picture: npt.NDArray[np.uint8]) -> str:
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not done:
        raise DataError("an image cannot be drawn")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
