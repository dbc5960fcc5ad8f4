"""Kinds of defect in parts.csv, castings list and manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from castings_rows import castings

from zdm_ml.data.assignment import make_entries
from zdm_ml.data.known_parts import known_parts
from zdm_ml.data.listing import listing_text, parse_listing
from zdm_ml.data.manifest import Row, read_manifest, write_manifest
from zdm_ml.errors import DataError
from zdm_ml.params import load_params

A, B = "train/def_front/a.jpeg", "test/def_front/b.jpeg"
FILES = {A: A, B: B}


def written(folder: Path, rows: list[Row]) -> list[Row]:
    """Lay empty files where the rows have their images."""
    for row in rows:
        (folder / row.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.path).touch()
    return rows


def test_parts_csv_names_kinds_in_any_order_and_divided_by_any_sign() -> None:
    lists = {"parts.csv": f'path,part,kinds\n{A},p,"scratch, pit"\n{B},q,\n'}

    assert known_parts(FILES, lists, None).kinds == {A: "pit;scratch", B: ""}


def test_a_second_kind_outside_quotes_is_refused_rather_than_dropped() -> None:
    with pytest.raises(DataError, match="line 2: more cells"):
        known_parts(FILES, {"parts.csv": f"path;part;kinds\n{A};p;pit;scratch\n"}, None)


def test_an_image_named_twice_has_the_kinds_of_both_lines() -> None:
    lists = {"parts.csv": f"path,part,kinds\n{A},p,pit\n{A},p,scratch\n"}

    assert known_parts(FILES, lists, None).kinds == {A: "pit;scratch"}


def test_a_parts_csv_without_kinds_names_none() -> None:
    assert known_parts(FILES, {"parts.csv": f"path,part\n{A},p\n"}, None).kinds == {}


def test_kinds_that_are_no_text_are_refused_with_their_line() -> None:
    with pytest.raises(DataError, match="line 2: kinds"):
        known_parts(FILES, {"parts.csv": f"path,part,kinds\n{A},p,pi\at\n"}, None)


def test_kinds_stay_with_the_bytes_that_they_were_named_for(tmp_path: Path, project: Path) -> None:
    rows = written(tmp_path, castings(2, 2, views=1))
    params = load_params(project / "params.yaml")

    first = make_entries(rows, tmp_path, {}, {rows[0].path: "pit"}, [], params)
    again = make_entries(rows, tmp_path, {}, {}, first, params)

    assert [entry.kinds for entry in again] == ["pit", "", "", ""]


def test_a_copy_without_a_kind_does_not_take_it_from_the_other(
    tmp_path: Path, project: Path
) -> None:
    rows = [replace(row, sha256="same") for row in written(tmp_path, castings(1, 1, views=2))]
    params = load_params(project / "params.yaml")

    first = make_entries(rows, tmp_path, {}, {rows[0].path: "pit"}, [], params)
    again = make_entries(rows, tmp_path, {}, {}, first, params)

    assert {entry.kinds for entry in again} == {"pit"}


def test_an_emptied_cell_takes_a_kind_back(tmp_path: Path, project: Path) -> None:
    rows = written(tmp_path, castings(1, 1, views=1))
    params = load_params(project / "params.yaml")

    first = make_entries(rows, tmp_path, {}, {rows[0].path: "pit"}, [], params)
    again = make_entries(rows, tmp_path, {}, {rows[0].path: ""}, first, params)

    assert [entry.kinds for entry in again] == ["", ""]


def test_a_castings_list_has_a_column_of_kinds_only_where_some_are_known() -> None:
    header = "path,sha256,size,part,known,side\n"
    (entry,) = parse_listing(f"{header}{A},aa,1,p,1,train\n", "list")

    assert listing_text([entry]).startswith(header)
    named = replace(entry, kinds="pit;scratch")
    assert parse_listing(listing_text([named]), "list") == [named]


def test_manifests_from_before_there_were_kinds_are_read(tmp_path: Path) -> None:
    rows = sorted(castings(1, 1, views=1), key=lambda row: row.path)
    file = tmp_path / "test.csv"
    write_manifest(file, rows)
    file.write_text(
        "".join(f"{line.rpartition(',')[0]}\n" for line in file.read_text().splitlines())
    )

    assert read_manifest(file) == rows


def test_a_manifest_keeps_kinds_and_refuses_a_line_that_ends_early(tmp_path: Path) -> None:
    (row,) = castings(0, 1, views=1)
    file = tmp_path / "split.csv"
    write_manifest(file, [replace(row, kinds="pit;scratch")])

    assert read_manifest(file)[0].kinds == "pit;scratch"
    file.write_text(file.read_text().replace(",pit;scratch", ""))
    with pytest.raises(DataError, match="line 2: a cell is missing"):
        read_manifest(file)
