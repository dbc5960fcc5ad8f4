"""Synthetic castings: known parts, exact masks, and no short cut to tell parts apart."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from zdm_ml.data.archive import stage_source
from zdm_ml.data.defects import KINDS, draw_defect
from zdm_ml.data.geometry import CAVITY, GROOVE, RIM, make_grid
from zdm_ml.data.images import Grey, decode_grey
from zdm_ml.data.layout import CLASS_FOLDERS
from zdm_ml.data.rendering import make_part, photograph
from zdm_ml.data.synthetic import known_defects, make_synthetic
from zdm_ml.errors import DataError

PARTS, VIEWS = 14, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "made"
    make_synthetic(folder, parts=PARTS, views=VIEWS, seed=5)
    return folder


@pytest.fixture(scope="module")
def records(made: Path) -> list[dict[str, str]]:
    with (made / "parts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_a_grey_300_px_jpeg_and_is_listed(
    made: Path, records: list[dict[str, str]]
) -> None:
    images = sorted(path.relative_to(made).as_posix() for path in made.glob("*/*_front/*.jpeg"))

    assert sorted(record["path"] for record in records) == images
    assert len(images) == PARTS * VIEWS
    shapes = {decode_grey(made / path, max_pixels=None).shape for path in images}
    assert shapes == {(300, 300)}


def test_the_views_of_a_part_share_split_class_and_kinds(records: list[dict[str, str]]) -> None:
    seen = Counter(record["part"] for record in records)
    homes = {(r["part"], r["path"].rpartition("/")[0], r["kinds"]) for r in records}

    assert set(seen.values()) == {VIEWS}
    assert len(homes) == PARTS
    assert {home for _, home, _ in homes} == {
        f"{split}/{folder}" for split in ("train", "test") for folder in CLASS_FOLDERS
    }


def test_defective_images_alone_have_kinds_and_masks(
    made: Path, records: list[dict[str, str]]
) -> None:
    for record in records:
        path = Path(record["path"])
        mask = made / "masks" / f"{path.stem}.png"

        assert mask.exists() == bool(record["kinds"]) == (path.parent.name == "def_front")
        if mask.exists():
            levels = decode_grey(mask, max_pixels=None)
            assert set(np.unique(levels)) == {0, 255}


def test_an_import_takes_the_images_and_leaves_masks_and_parts(made: Path, tmp_path: Path) -> None:
    staged = stage_source(
        made, tmp_path / "castings", quarantine=tmp_path / "quarantine", max_pixels=90_000
    )

    assert staged.images == PARTS * VIEWS
    assert staged.quarantined == ()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "other")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        make_synthetic(folder, parts=4, views=2, seed=seed, size=96)

    first, second, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    )
    assert first == second
    assert not set(first.values()) & set(other.values())


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_defect_is_visible_on_the_metal_where_its_mask_says(kind: str) -> None:
    grid = make_grid(300)
    for seed in range(8):
        layer = draw_defect(kind, np.random.default_rng(seed), grid)

        assert 5 < layer.mask.sum() < 6000
        assert layer.cover[layer.mask].mean() > 0.3
        assert grid.radius[layer.mask].min() > GROOVE - 16
        assert grid.radius[layer.mask].max() < RIM + 26


def test_a_mask_covers_what_the_defect_changes_and_nothing_else() -> None:
    part = make_part(np.random.default_rng(8), 300, defective=True)
    sound = replace(part, defects=())

    broken = photograph(part, np.random.default_rng(1))
    clean = photograph(sound, np.random.default_rng(1))

    change = np.abs(broken.image.astype(int) - clean.image)
    near = cv2.dilate(broken.mask, np.ones((11, 11), np.uint8)) > 0
    assert not clean.mask.any()
    assert change[~near].max() <= 1
    assert change[broken.mask > 0].mean() > 20


def test_defects_do_not_change_the_brightness_of_an_image_much(
    made: Path, records: list[dict[str, str]]
) -> None:
    levels: dict[bool, list[float]] = {True: [], False: []}
    for record in records:
        image = decode_grey(made / record["path"], max_pixels=None)
        levels[bool(record["kinds"])].append(float(image.mean()))

    spread = np.std(levels[True] + levels[False])
    assert abs(np.mean(levels[True]) - np.mean(levels[False])) < spread


def test_mean_hash_cannot_tell_parts_apart_but_an_unwrapped_ring_can(
    made: Path, records: list[dict[str, str]]
) -> None:
    parts = np.array([record["part"] for record in records])
    images = [decode_grey(made / record["path"], max_pixels=None) for record in records]

    by_hash = parts[nearest_by_mean_hash(images)] == parts
    by_ring = parts[nearest_by_ring(images)] == parts

    assert by_hash.mean() < 0.4
    assert by_ring.mean() > 0.8


def nearest_by_mean_hash(images: list[Grey]) -> np.ndarray:
    small = np.array([cv2.resize(i, (8, 8), interpolation=cv2.INTER_AREA) for i in images])
    bits = (small > small.mean(axis=(1, 2), keepdims=True)).reshape(len(images), -1)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    np.fill_diagonal(distance, 65)
    return distance.argmin(axis=1)


def nearest_by_ring(images: list[Grey]) -> np.ndarray:
    """Correlate the flanges over every rotation and both mirror images."""
    rings = np.array([unwrapped_flange(image) for image in images])
    straight, mirrored = np.fft.fft(rings), np.fft.fft(rings[:, :, ::-1])
    alike = np.full((len(rings), len(rings)), -1.0)
    for index, ring in enumerate(straight):
        for other in (straight, mirrored):
            shifts = np.fft.ifft((ring.conj() * other).sum(axis=1)).real
            alike[index] = np.maximum(alike[index], shifts.max(axis=1))
    np.fill_diagonal(alike, -1)
    return alike.argmax(axis=1)


def unwrapped_flange(image: Grey) -> np.ndarray:
    """Return the flange, high-passed, as [radius, angle], undoing shear by the cavity's ellipse."""
    dark = (cv2.GaussianBlur(image, (0, 0), 1) < 60).astype(np.uint8)
    outlines, _ = cv2.findContours(dark, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    middle = [o for o in outlines if cv2.pointPolygonTest(o, (150, 150), False) >= 0]
    cavity = min(middle, key=lambda o: abs(cv2.contourArea(o) - np.pi * CAVITY**2))
    (x, y), (width, height), tilt = cv2.fitEllipse(cavity)
    turn = np.deg2rad(tilt)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    affine = axes @ np.diag([width, height]) @ axes.T / (2 * CAVITY)
    angle = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    radius = np.arange(GROOVE + 5, RIM - 3, 0.6)[:, None]
    places = np.einsum("ij,jra->ira", affine, [radius * np.cos(angle), radius * np.sin(angle)])
    x_map, y_map = (places + np.array([x, y])[:, None, None]).astype(np.float32)
    ring = cv2.remap(image.astype(np.float32), x_map, y_map, cv2.INTER_LINEAR)
    detail = np.clip(ring - cv2.GaussianBlur(ring, (0, 0), 6), -25, 25)
    return (detail - detail.mean()) / np.linalg.norm(detail - detail.mean())


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="is not empty"):
        make_synthetic(tmp_path, parts=4, views=1, seed=1)


@pytest.mark.parametrize(("parts", "share"), [(3, 0.5), (10, 0.0), (10, 1.0)])
def test_too_few_parts_of_a_class_are_refused(parts: int, share: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        make_synthetic(tmp_path / "made", parts=parts, views=1, seed=1, defect_share=share)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="cannot be written to .*file/made: Not a directory"):
        make_synthetic(tmp_path / "file" / "made", parts=4, views=1, seed=1)


def test_known_defects_are_photographs_with_masks_that_a_seed_repeats() -> None:
    photos, again, others = (known_defects(4, seed, 150) for seed in (3, 3, 4))

    for photo in photos:
        assert photo.image.shape == photo.mask.shape == (150, 150)
        assert set(np.unique(photo.mask)) == {0, 255}
    images = [photo.image.tobytes() for photo in photos]
    assert images == [photo.image.tobytes() for photo in again]
    assert len({*images, *(photo.image.tobytes() for photo in others)}) == 8


def test_known_defects_are_none_of_a_data_set_of_the_same_seed(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "made", parts=6, views=1, seed=3, size=150, defect_share=0.6)

    trained_on = [cv2.imread(str(path), 0) for path in (tmp_path / "made").glob("*/def_front/*")]

    for photo in known_defects(6, 3, 150):
        apart = [float(np.abs(photo.image.astype(int) - image).mean()) for image in trained_on]
        assert min(apart) > 5
