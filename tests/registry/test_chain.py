"""The chain of the ledger's lines, on bytes alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zdm_ml.registry.chain import extension, seal, verify

LEGACY = b'{"action": "promote", "from": null, "to": "1"}\n'


def _entry(number: int, reason: str = "r") -> dict[str, Any]:
    return {"account": "foundry", "action": "keep", "to": str(number), "reason": reason}


def _ledger(count: int, start: bytes = b"") -> bytes:
    content = start
    for number in range(count):
        content += extension(content, _entry(number))
    return content


def _anchor(content: bytes) -> str | None:
    return verify(content, None).head


def _tampered(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


WHOLE = _ledger(5)
ANCHOR = _anchor(WHOLE)
LINES = WHOLE.splitlines()


def _forged(line: bytes, **changes: Any) -> bytes:
    """A line whose content was changed by somebody who knows how to hash it."""
    content = json.loads(line) | changes
    del content["hash"]
    return seal(content)


def test_an_untouched_ledger_holds() -> None:
    report = verify(WHOLE, ANCHOR)

    assert (report.fault, report.lines, report.behind, report.torn) == (None, 5, 0, ())


def test_an_empty_ledger_holds() -> None:
    assert verify(b"", None).fault is None


def test_an_edited_line_is_named() -> None:
    edited = WHOLE.replace(b'"to":"2"', b'"to":"9"')

    fault = verify(edited, None).fault

    assert fault is not None
    assert (fault.line, fault.problem.split(":")[0]) == (3, "it was changed")


def test_another_spelling_of_the_same_content_is_an_edit() -> None:
    spaced = [*LINES[:1], LINES[1].replace(b'"n":2', b'"n": 2'), *LINES[2:]]

    fault = verify(_tampered(spaced), None).fault

    assert fault is not None and fault.line == 2


def test_an_edited_line_with_a_fitting_hash_is_named_by_the_next() -> None:
    forged = [*LINES[:2], _forged(LINES[2], to="9"), *LINES[3:]]

    fault = verify(_tampered(forged), None).fault

    assert fault is not None
    assert str(fault) == "line 3: it is not the line that line 4 was written after"


def test_an_edited_last_line_with_a_fitting_hash_is_named_by_the_anchor() -> None:
    forged = _tampered([*LINES[:4], _forged(LINES[4], to="9")])

    fault = verify(forged, ANCHOR).fault

    assert fault is not None
    assert str(fault) == "line 5: it is not the line that the anchor names"


def test_a_removed_line_is_named() -> None:
    fault = verify(_tampered(LINES[:1] + LINES[2:]), None).fault

    assert fault is not None
    assert str(fault) == "line 2: it carries number 3: lines before it are missing"


def test_a_removed_first_line_is_named() -> None:
    fault = verify(_tampered(LINES[1:]), None).fault

    assert fault is not None and fault.line == 1


def test_reordered_lines_are_named() -> None:
    fault = verify(_tampered([LINES[0], LINES[2], LINES[1], *LINES[3:]]), None).fault

    assert fault is not None and fault.line == 2


@pytest.mark.parametrize("inserted", [LINES[1], LEGACY.strip(), b"", b"noise"])
def test_an_inserted_line_is_named(inserted: bytes) -> None:
    fault = verify(_tampered([*LINES[:3], inserted, *LINES[3:]]), None).fault

    assert fault is not None and fault.line == 4


def test_an_inserted_line_that_chains_on_is_named_by_the_next() -> None:
    before = _tampered(LINES[:3])

    fault = verify(before + extension(before, _entry(9)) + _tampered(LINES[3:]), None).fault

    assert fault is not None and fault.line == 5


@pytest.mark.parametrize("left", range(5))
def test_lines_cut_off_at_the_end_are_named(left: int) -> None:
    fault = verify(_tampered(LINES[:left]), ANCHOR).fault

    assert fault is not None
    assert str(fault) == f"line {left + 1}: it is missing: the anchor names line 5"


def test_without_an_anchor_a_cut_at_the_end_is_not_seen() -> None:
    assert verify(_tampered(LINES[:3]), None).fault is None


@pytest.mark.parametrize("anchor", ["5 " + "0" * 64, "9 " + "0" * 64, "0 ", "nonsense", ""])
def test_an_anchor_that_names_no_line_is_a_fault(anchor: str) -> None:
    assert verify(WHOLE, anchor).fault is not None


def test_the_beginning_of_a_line_is_a_crash_unless_the_anchor_names_that_line() -> None:
    cut = WHOLE[:-30]
    before = _anchor(_tampered(LINES[:4]))

    crash, tampering = verify(cut, before), verify(cut, ANCHOR)

    assert (crash.fault, crash.torn) == (None, (5,))
    assert tampering.fault is not None
    assert str(tampering.fault) == "line 5: it is cut short: the anchor names line 5"


def test_what_no_crash_leaves_at_the_end_is_a_fault() -> None:
    fault = verify(WHOLE + b'{"whatever', ANCHOR).fault

    assert fault is not None and fault.line == 6


def test_a_broken_line_is_never_covered_up_as_cut_short() -> None:
    spoilt = _tampered([*LINES[:4], b"spoilt"])

    later = spoilt + extension(spoilt, _entry(9))

    fault = verify(later, None).fault
    assert fault is not None and fault.line == 5


def test_a_forged_beginning_does_not_reach_past_the_anchor() -> None:
    """Adopting the lines before it, as the first chained line may, hides no edit."""
    edited = WHOLE.replace(b'"to":"2"', b'"to":"9"')

    forged = edited + extension(edited, _entry(9), accept=True)

    assert verify(forged, ANCHOR).fault is not None


def test_lines_without_hashes_after_the_chain_are_a_fault() -> None:
    fault = verify(WHOLE + LEGACY, ANCHOR).fault

    assert fault is not None
    assert str(fault) == "line 6: it carries no hash"


@given(count=st.integers(1, 4), old=st.integers(0, 2), data=st.data())
def test_a_crash_at_any_byte_is_healed_by_the_next_line(
    count: int, old: int, data: st.DataObject
) -> None:
    before = _ledger(count, LEGACY * old)
    line = extension(before, _entry(count, data.draw(st.text())))
    crashed = before + line[: data.draw(st.integers(0, len(line)))]

    left = verify(crashed, _anchor(before))
    healed = crashed + extension(crashed, _entry(9))

    report = verify(healed, _anchor(before))
    assert left.fault is None
    assert report.fault is None
    assert healed.startswith(crashed)
    assert b'"to":"9"' in healed.splitlines()[-1]


@given(count=st.integers(1, 4), data=st.data())
def test_crashes_in_a_row_are_healed_as_well(count: int, data: st.DataObject) -> None:
    before = content = _ledger(count)
    for _ in range(3):
        line = extension(content, _entry(count))
        content += line[: data.draw(st.integers(0, len(line)))]

    healed = content + extension(content, _entry(9))

    assert verify(healed, _anchor(before)).fault is None


@given(count=st.integers(1, 5), old=st.integers(0, 2), torn=st.booleans(), data=st.data())
def test_any_change_of_one_line_is_found(
    count: int, old: int, torn: bool, data: st.DataObject
) -> None:
    content = _ledger(count, LEGACY * old)
    if torn:
        content += extension(content, _entry(8))[:20]
        content += extension(content, _entry(9))
    anchor, lines = _anchor(content), content.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    changed = _one_line_changed(lines, at, data)

    report = verify(changed, anchor)

    assert verify(content, anchor).fault is None
    assert changed == content or report.fault is not None


def _one_line_changed(lines: list[bytes], at: int, data: st.DataObject) -> bytes:
    """Edit, forge, remove, move, double, insert or shorten one line."""
    line, others = lines[at], lines[:at] + lines[at + 1 :]
    spot = data.draw(st.integers(0, len(line) - 1))
    to = data.draw(st.integers(0, len(others)))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    match data.draw(
        st.sampled_from(["edit", "forge", "remove", "move", "double", "insert", "cut"])
    ):
        case "edit":
            new = [*lines[:at], line[:spot] + byte + line[spot + 1 :], *lines[at + 1 :]]
        case "forge" if b'"hash"' in line:
            new = [*lines[:at], _forged(line, reason="forged"), *lines[at + 1 :]]
        case "move":
            new = [*others[:to], line, *others[to:]]
        case "double":
            new = [*lines[:to], line, *lines[to:]]
        case "insert":
            new = [*lines[:to], data.draw(st.binary()), *lines[to:]]
        case "cut":
            new = [*lines[:at], line[:spot], *lines[at + 1 :]]
        case _:
            new = others
    return _tampered(new)
