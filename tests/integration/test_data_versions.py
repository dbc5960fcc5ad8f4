"""Data versions as DVC and git keep them: imported, carried on, brought back, never damaged."""

from __future__ import annotations

import configparser
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from castings_desk import CastingsDesk, contents, make_dataset, picture, write_parts
from foundry import Foundry
from typer.testing import CliRunner

from zdm_ml.cli import app
from zdm_ml.data.checkout import checkout_data, checkout_version, place
from zdm_ml.data.importing import import_data
from zdm_ml.data.integrity import find_damage
from zdm_ml.data.listing import Entry, read_listing
from zdm_ml.data.lockbox import set_aside
from zdm_ml.data.rotation import rotate
from zdm_ml.data.sides import LOCKBOX
from zdm_ml.data.versions import BRANCH, entries_of, resolve, versions
from zdm_ml.errors import DataError, PipelineError
from zdm_ml.files import write_text
from zdm_ml.pipeline.commands import git
from zdm_ml.pipeline.plan import RunRequest, plan_run
from zdm_ml.pipeline.stages import Context
from zdm_ml.pipeline.workspace import Workspace, add_worktree, publish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def desk(template: CastingsDesk, tmp_path: Path) -> CastingsDesk:
    return template.copy(tmp_path / "project")


def cached(desk: CastingsDesk, name: str, place: str = "cache") -> Path:
    """Return the object that holds an image of the newest version, in the cache or the remote."""
    store = {"cache": desk.root / ".dvc" / "cache", "remote": desk.root / ".zdm" / "remote"}[place]
    md5 = resolve(desk.root).md5
    listing = json.loads((store / "files" / "md5" / md5[:2] / md5[2:]).read_text())
    (digest,) = [item["md5"] for item in listing if item["relpath"] == name]
    return store / "files" / "md5" / digest[:2] / digest[2:]


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    path.chmod(0o444)


def workspace(desk: CastingsDesk, run_id: str = "r1") -> Path:
    return Path(plan_run(desk.settings, RunRequest(run_id, "smoke", ("luna",))).workspace)


IMAGE = "train/ok_front/cast_K_1.jpeg"


def test_a_version_holds_a_list_with_parts_and_sides(desk: CastingsDesk) -> None:
    entries = read_listing(desk.root / "data" / "castings.csv")

    assert entries == entries_of(desk.root, BRANCH)
    assert len(entries) == 48
    assert {entry.part for entry in entries if entry.label == "ok"} == {f"K{n}" for n in range(12)}
    assert all(entry.known for entry in entries)
    assert all(entry.kinds == ("pit" if entry.label == "defect" else "") for entry in entries)
    assert {entry.side for entry in entries} == {"train", "val", "calibration", "test"}
    assert len({(entry.part, entry.side) for entry in entries}) == 24
    assert "48 images (24 ok, 24 defect) of 24 castings" in resolve(desk.root).message


def test_the_same_castings_again_are_nothing_new(desk: CastingsDesk, dataset: Path) -> None:
    again = import_data(desk.settings, dataset, desk.params)

    assert not again.changed
    assert len(versions(desk.root)) == 1


def known_of(entry: Entry) -> tuple[str, bool, str, str]:
    return entry.part, entry.known, entry.side, entry.kinds


def test_parts_and_sides_are_carried_on_without_the_sources_list(
    desk: CastingsDesk, tmp_path: Path
) -> None:
    """The second import names no part: the same bytes keep theirs, and one image is new."""
    source = make_dataset(tmp_path / "more")
    (source / "parts.csv").unlink()
    (source / "train" / "ok_front" / "new.jpeg").write_bytes(picture(5000))
    before = {e.sha256: known_of(e) for e in entries_of(desk.root, BRANCH) or []}

    imported = import_data(desk.settings, source, desk.params)

    after = {e.sha256: known_of(e) for e in entries_of(desk.root, BRANCH) or []}
    assert imported.changed
    assert {sha: after[sha] for sha in before} == before
    assert len(after) == 49


def test_other_parts_for_the_same_images_are_a_new_version_with_the_same_sides(
    desk: CastingsDesk, tmp_path: Path
) -> None:
    source = make_dataset(tmp_path / "renamed")
    entries = entries_of(desk.root, BRANCH) or []
    write_parts(source, {entry.path: f"SN-{entry.part}" for entry in entries})

    imported = import_data(desk.settings, source, desk.params)

    first, second = versions(desk.root)[::-1]
    assert imported.changed
    assert first.md5 == second.md5
    found = desk.json("zdm", "data", "diff", first.commit, second.commit)
    assert len(found["castings_added"]) == len(found["castings_removed"]) == 24
    assert found["sides_changed"] == found["added"] == found["removed"] == []


def test_too_few_castings_are_imported_without_sides(
    make_checkout: Callable[[], Path], tmp_path: Path
) -> None:
    desk, source = CastingsDesk(make_checkout()), make_dataset(tmp_path / "few")
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*.jpeg")]
    write_parts(source, {path: "D" if "def_front" in path else "K" for path in paths})

    imported = import_data(desk.settings, source, desk.params)

    assert imported.changed
    assert not imported.dealt
    assert {entry.side for entry in entries_of(desk.root, BRANCH) or []} == {""}


def test_parts_csv_without_its_columns_is_named_and_nothing_is_imported(
    desk: CastingsDesk, tmp_path: Path
) -> None:
    source = make_dataset(tmp_path / "bad", seed=90)
    (source / "parts.csv").write_text("file,serial\na,b\n")

    with pytest.raises(DataError, match="path and part"):
        import_data(desk.settings, source, desk.params)

    assert len(versions(desk.root)) == 1


def test_checkout_brings_back_any_version(desk: CastingsDesk, tmp_path: Path) -> None:
    first = contents(desk.root / "data")
    import_data(desk.settings, make_dataset(tmp_path / "other", seed=70), desk.params)
    second = contents(desk.root / "data")

    desk.run("zdm", "data", "checkout", versions(desk.root)[1].commit[:12])

    assert contents(desk.root / "data") == first
    desk.run("zdm", "data", "checkout")
    assert contents(desk.root / "data") == second


def test_a_crash_between_images_and_list_is_noticed_and_healed(
    desk: CastingsDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_dataset(tmp_path / "other", seed=70)
    monkeypatch.setattr("zdm_ml.data.checkout.write_text", _crash)
    with pytest.raises(KeyboardInterrupt):
        place(desk.settings, other, "never written")

    with pytest.raises(DataError, match="castings list .* is missing"):
        Context(desk.settings).verified_castings()
    monkeypatch.undo()
    checkout_version(desk.settings)

    assert Context(desk.settings).verified_castings() == desk.castings


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_image_in_a_workspace_stops_training(
    desk: CastingsDesk, damage: Callable[[Path], None]
) -> None:
    path = workspace(desk)
    damage(path / "data" / "castings" / IMAGE)

    done = desk.run("zdm", "workspace", "stage", "--run-id", "r1", "audit", check=False)

    assert done.returncode != 0
    assert IMAGE in done.stdout + done.stderr
    assert not (path / "manifest").exists()


def test_a_cut_object_in_the_cache_is_fetched_anew(desk: CastingsDesk) -> None:
    whole = (desk.castings / IMAGE).read_bytes()
    cut(cached(desk, IMAGE))

    path = workspace(desk)

    assert (path / "data" / "castings" / IMAGE).read_bytes() == whole
    assert cached(desk, IMAGE).read_bytes() == whole


def test_altered_bytes_of_the_same_size_in_the_cache_are_fetched_anew(desk: CastingsDesk) -> None:
    whole = (desk.castings / IMAGE).read_bytes()
    target = cached(desk, IMAGE)
    target.chmod(0o644)
    target.write_bytes(whole[:-4] + b"\0\0\0\0")

    path = workspace(desk)

    assert (path / "data" / "castings" / IMAGE).read_bytes() == whole


def test_a_cut_folder_object_in_the_cache_is_fetched_anew(desk: CastingsDesk) -> None:
    md5 = resolve(desk.root).md5
    target = desk.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    whole = target.read_bytes()
    cut(target)

    workspace(desk)

    assert target.read_bytes() == whole


@pytest.mark.parametrize("cache", ["cut", "absent"])
def test_an_object_cut_in_the_remote_as_well_stops_the_run_and_is_named(
    desk: CastingsDesk, cache: str
) -> None:
    cut(cached(desk, IMAGE, "remote"))
    if cache == "cut":
        cut(cached(desk, IMAGE))
    else:
        cached(desk, IMAGE).unlink()

    with pytest.raises(DataError) as caught:
        workspace(desk)

    assert IMAGE in caught.value.problem
    assert not (desk.root / ".zdm" / "runs" / "r1" / "data" / "castings.csv").exists()
    assert not (desk.root / ".zdm" / "runs" / "r1" / ".zdm-run.json").exists()


def test_an_object_left_cut_by_a_killed_writer_is_written_anew(
    desk: CastingsDesk, tmp_path: Path
) -> None:
    source = make_dataset(tmp_path / "castings")
    (source / "train" / "ok_front" / "new.jpeg").write_bytes(picture(6000))
    probe = desk.copy(tmp_path / "probe")
    import_data(probe.settings, source, probe.params)
    for place_ in ("cache", "remote"):
        good = cached(probe, "train/ok_front/new.jpeg", place_)
        leftover = desk.root / good.relative_to(probe.root)
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(good.read_bytes()[:50])

    import_data(desk.settings, source, desk.params)

    for place_ in ("cache", "remote"):
        path = cached(desk, "train/ok_front/new.jpeg", place_)
        assert path.read_bytes() == picture(6000)


def test_every_remote_of_a_worktree_is_verified(desk: CastingsDesk, tmp_path: Path) -> None:
    desk.run("dvc", "remote", "modify", "local", "verify", "false")
    desk.run("dvc", "remote", "add", "spare", str(tmp_path / "spare"))
    desk.run("dvc", "remote", "add", "--local", "mine", str(tmp_path / "mine"))
    tree = desk.root / ".zdm" / "tree"

    add_worktree(desk.settings, tree)

    config = configparser.ConfigParser(interpolation=None)
    config.read(tree / ".dvc" / "config.local")
    remotes = {name: config[name]["verify"] for name in config.sections() if "remote" in name}
    assert len(remotes) == 3
    assert set(remotes.values()) == {"true"}


def test_a_killed_worktree_add_does_not_block_the_next(desk: CastingsDesk) -> None:
    """Git keeps a half-made worktree locked, which neither prune nor one --force gets past."""
    tree = desk.root / ".zdm" / "runs" / "r1"
    add_worktree(desk.settings, tree)
    (desk.root / ".git" / "worktrees" / "r1" / "locked").write_text("initializing")

    add_worktree(desk.settings, tree)

    assert (tree / "dvc.yaml").is_file()


def test_a_lock_of_the_branch_left_by_a_killed_git_does_not_block(
    desk: CastingsDesk, tmp_path: Path
) -> None:
    (desk.root / ".git" / "refs" / "heads" / "zdm" / "data.lock").touch()

    imported = import_data(desk.settings, make_dataset(tmp_path / "b", seed=70), desk.params)

    assert imported.changed


def test_a_commit_with_an_empty_pointer_is_no_data_version(desk: CastingsDesk) -> None:
    good = resolve(desk.root)
    blob = git(desk.root, "hash-object", "-w", "--stdin", stdin="")
    data = git(desk.root, "mktree", stdin=f"100644 blob {blob}\tcastings.dvc\n")
    tree = git(desk.root, "mktree", stdin=f"040000 tree {data}\tdata\n")
    commit = git(desk.root, "commit-tree", tree, "-p", good.commit, "-m", "damaged")
    git(desk.root, "update-ref", f"refs/heads/{BRANCH}", commit)

    assert resolve(desk.root) == good


def published(desk: CastingsDesk) -> Workspace:
    """Return a workspace whose stages audit and split ran, with a pipeline of those two."""
    path = workspace(desk)
    text = (path / "dvc.yaml").read_text()
    write_text(path / "dvc.yaml", text[: text.index("\n  train:")] + "\n")
    for stage in ("audit", "split"):
        desk.run("zdm", "workspace", "stage", "--run-id", "r1", stage)
    return Workspace("r1", path)


def test_a_run_is_published_only_with_its_whole_lock_and_pointer(desk: CastingsDesk) -> None:
    """dvc.lock cut at each line, wherever that is valid YAML, and an empty pointer."""
    run = published(desk)
    lock, pointer = run.path / "dvc.lock", run.path / "data" / "castings.dvc"
    whole = lock.read_text()
    lines = whole.splitlines(keepends=True)
    for end in range(len(lines)):
        write_text(lock, "".join(lines[:end]))
        with pytest.raises(PipelineError):
            publish(desk.settings, run)
    write_text(lock, whole)
    kept = pointer.read_text()
    write_text(pointer, "")
    with pytest.raises(PipelineError, match="missing or damaged"):
        publish(desk.settings, run)

    write_text(pointer, kept)
    commit = publish(desk.settings, run)

    named = git(desk.root, "ls-tree", "-r", "--name-only", commit, "data/").splitlines()
    assert named == ["data/castings.csv", "data/castings.dvc"]


def test_a_version_from_before_there_were_lists_is_verified_by_its_hash(
    desk: CastingsDesk,
) -> None:
    good = resolve(desk.root)
    blob = git(desk.root, "rev-parse", f"{BRANCH}:data/castings.dvc")
    data = git(desk.root, "mktree", stdin=f"100644 blob {blob}\tcastings.dvc\n")
    tree = git(desk.root, "mktree", stdin=f"040000 tree {data}\tdata\n")
    commit = git(desk.root, "commit-tree", tree, "-p", good.commit, "-m", "old")
    cut(cached(desk, IMAGE))
    path = desk.root / ".zdm" / "tree"
    add_worktree(desk.settings, path)

    checkout_data(desk.settings, path, commit)

    entries = entries_of(desk.root, BRANCH) or []
    assert not find_damage(path / "data" / "castings", entries)


def test_log_tells_counts_and_changes_of_each_version(desk: CastingsDesk, tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "castings")
    (source / "train" / "ok_front" / "new.jpeg").write_bytes(picture(5000))
    import_data(desk.settings, source, desk.params)

    lines = desk.run("zdm", "data", "log", "--json").stdout.splitlines()
    newest, first = (json.loads(line) for line in lines)

    assert (newest["added"], newest["removed"], first["added"]) == (1, 0, 48)
    assert newest["images"] == {"ok": 25, "defect": 24}
    assert first["castings"] == {"ok": 12, "defect": 12, "mixed": 0}
    assert newest["models"] is None
    assert "MLflow does not answer" in desk.run("zdm", "data", "log").stdout


def test_a_lockbox_is_drawn_once_and_kept_by_later_versions(
    desk: CastingsDesk, dataset: Path
) -> None:
    before = resolve(desk.root)

    locked = set_aside(desk.settings, desk.params, share=0.2, seed=0)

    inside = {
        e.part for e in read_listing(desk.root / "data" / "castings.csv") if e.side == LOCKBOX
    }
    assert len(inside) == sum(locked.census.castings.values()) == 4
    assert locked.version.md5 == before.md5
    with pytest.raises(DataError, match="has a lockbox of 4 castings"):
        set_aside(desk.settings, desk.params, share=0.2, seed=1)
    imported = import_data(desk.settings, dataset, desk.params)
    assert not imported.changed
    assert {e.part for e in entries_of(desk.root, BRANCH) or [] if e.side == LOCKBOX} == inside


def test_fresh_castings_take_the_test_side_and_the_old_ones_train(
    desk: CastingsDesk,
) -> None:
    before = {entry.part: entry.side for entry in entries_of(desk.root, BRANCH) or []}
    learned = {part for part, side in before.items() if side in ("val", "calibration")}

    proposed, none = rotate(desk.settings, desk.params, learned, apply=False)
    rotation, version = rotate(desk.settings, desk.params, learned, apply=True)

    assert none is None
    assert proposed == rotation
    assert version is not None
    after = {entry.part: entry.side for entry in entries_of(desk.root, version.commit) or []}
    fresh = {part for part, side in after.items() if side == "test"}
    assert fresh == {part for parts in rotation.fresh.values() for part in parts}
    assert not fresh & (learned | {part for part, side in before.items() if side == "test"})
    assert Counter(after.values()) == Counter(before.values())
    with pytest.raises(DataError, match="too few fresh castings: 2 ok and 2 defect are missing"):
        rotate(desk.settings, desk.params, set(after), apply=True)
    assert resolve(desk.root).commit == version.commit


def test_the_command_asks_the_registry_what_the_champion_learned_from(
    desk: CastingsDesk, foundry: Foundry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZDM_ROOT", str(desk.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", foundry.server.uri)
    arguments = ["data", "rotate-test", "--json"]

    without = CliRunner().invoke(app, arguments)
    foundry.champions(1)
    seen = CliRunner().invoke(app, arguments)

    assert json.loads(without.stdout)["champion"] is None
    answer = json.loads(seen.stdout)
    assert (answer["champion"], answer["version"]) == ("1", None)
    assert len(answer["fresh"]["ok"]) == len(answer["retired"]["ok"]) == 2
