"""The chain of the ledger's lines: how a line is tied to the one before, and what breaks the tie.

A line is one canonical JSON object: keys sorted, no spaces, ASCII. `n` is its number in the file,
`prev` the `hash` of the line before, `hash` the sha256 of the object without that key. The first
line of a chain has the sha256 of every byte before it as `prev`, and so adopts lines that were
written without hashes. `torn` is the sha256 of what crashes cut short between `prev` and this line.

The anchor, kept apart from the file, is the text "<n> <hash>" of one line. docs/ledger.md says
which states of file and anchor are honest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BEGINNING = b'{"account":"'
"""How every line begins: `account` is the first of its keys."""

ACCEPT = "accept"
"""The action of a line that begins the chain anew after a break, on somebody's word."""


@dataclass(frozen=True)
class Fault:
    """The first line at which the ledger is not what was written."""

    line: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True)
class Report:
    """What `verify` found; `behind` counts the lines after the one that the anchor names.

    Lines before `begins` are vouched for as a whole; `torn` are lines that a crash cut short.
    """

    lines: int
    begins: int
    torn: tuple[int, ...]
    behind: int
    head: str | None
    fault: Fault | None


@dataclass(frozen=True)
class _Link:
    n: int
    prev: str
    hash: str
    torn: str | None
    accepts: bool

    @property
    def anchor(self) -> str:
        return f"{self.n} {self.hash}"


@dataclass(frozen=True)
class _Broken:
    problem: str
    claims: bool = False  # whether it carries a hash, be it a wrong one


@dataclass(frozen=True)
class _Walk:
    links: list[_Link]  # what holds together, the oldest first
    torn: tuple[int, ...]
    fault: Fault | None


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the line of `content`, which holds everything but `hash`, without a newline."""
    own = hashlib.sha256(_canonical(content)).hexdigest()
    return _canonical({**content, "hash": own})


def extension(ledger: bytes, entry: Mapping[str, Any], *, accept: bool = False) -> bytes:
    """Return the bytes that add `entry` to a ledger in whatever state it is.

    With `accept` the line adopts everything before it and so begins the chain anew. Otherwise it
    never covers up a break: what is no crash's work stays a fault.
    """
    lines, rest = _split(ledger)
    newline = b"" if not ledger or ledger.endswith(b"\n") else b"\n"
    pieces = [*lines, rest] if rest else lines
    read = [_read(piece) for piece in pieces]
    known = [(index, item) for index, item in enumerate(read) if isinstance(item, _Link)]
    tie: dict[str, Any] = {"n": len(pieces) + 1, "prev": ""}
    if accept or not any(isinstance(item, _Link) or item.claims for item in read):
        tie["prev"] = hashlib.sha256(ledger + newline).hexdigest()
    elif known:
        at, last = known[-1]
        gap = pieces[at + 1 :]
        tie["prev"] = last.hash
        if gap and all(map(_may_be_cut, gap)):
            tie["torn"] = _digest(gap)
    return newline + seal({**entry, **tie}) + b"\n"


def verify(ledger: bytes, anchor: str | None) -> Report:
    """Check the chain and whether it holds the line that the anchor names, if there is one."""
    lines, rest = _split(ledger)
    walk = _walk(lines)
    fault, torn = walk.fault, walk.torn
    if rest:
        torn = (*torn, len(lines) + 1)
        if walk.links and fault is None and not _may_be_cut(rest):
            fault = Fault(len(lines) + 1, "it is neither a line nor the beginning of one")
    named = [link.anchor for link in walk.links]
    if fault is None and anchor is not None and anchor not in named:
        fault = _missing(anchor, len(lines), cut=bool(rest))
    behind = len(named) - (named.index(anchor) + 1 if anchor in named else 0)
    begins = walk.links[0].n if walk.links else len(lines) + 1
    return Report(len(lines), begins, torn, behind, named[-1] if named else None, fault)


def _walk(lines: Sequence[bytes]) -> _Walk:
    read = [_read(line) for line in lines]
    first = _beginning(lines, read)
    if first is None:
        return _Walk([], (), _unfounded(read))
    links, torn, after = [first], list[int](), first.n
    for index in range(first.n, len(lines)):
        link = read[index]
        if isinstance(link, _Broken):
            continue  # the line that follows says whether a crash cut it short
        fault = _loose(links[-1], link, index + 1, lines[after:index], read[after:index])
        if fault is not None:
            return _Walk(links, tuple(torn), fault)
        torn += range(after + 1, index + 1)
        links.append(link)
        after = index + 1
    unexplained = read[after] if after < len(lines) else None
    fault = Fault(after + 1, unexplained.problem) if isinstance(unexplained, _Broken) else None
    return _Walk(links, tuple(torn), fault)


def _loose(
    last: _Link, link: _Link, n: int, gap: Sequence[bytes], broken: Sequence[_Link | _Broken]
) -> Fault | None:
    """Return why line `n` does not follow from `last`, with the lines of `gap` between them."""
    if gap and (link.torn != _digest(gap) or not all(map(_may_be_cut, gap))):
        problem = next(item.problem for item in broken if isinstance(item, _Broken))
        return Fault(n - len(gap), problem)
    if link.n != n:
        why = "lines before it are missing" if link.n > n else "it was put here"
        return Fault(n, f"it carries number {link.n}: {why}")
    if link.prev != last.hash or (link.torn and not gap):
        return Fault(last.n, f"it is not the line that line {n} was written after")
    return None


def _beginning(lines: Sequence[bytes], read: Sequence[_Link | _Broken]) -> _Link | None:
    """Return the last line that vouches for every byte before it."""
    seen, claimed = hashlib.sha256(), False
    found: _Link | None = None
    for index, (line, item) in enumerate(zip(lines, read, strict=True)):
        if isinstance(item, _Link):
            adopts = item.prev == seen.hexdigest() and item.n == index + 1
            if adopts and (item.accepts or not claimed):
                found = item
        claimed = claimed or isinstance(item, _Link) or item.claims
        seen.update(line + b"\n")
    return found


def _unfounded(read: Sequence[_Link | _Broken]) -> Fault | None:
    """Return what is wrong where no line begins a chain; nothing where none carries a hash."""
    for index, item in enumerate(read):
        if isinstance(item, _Broken):
            if item.claims:
                return Fault(index + 1, item.problem)
        elif index:
            which = "it is" if index == 1 else f"lines 1 to {index} are"
            return Fault(1, f"{which} not what line {index + 1} was written after")
        else:
            return Fault(1, f"it carries number {item.n} and does not begin the ledger")
    return None


def _missing(anchor: str, lines: int, *, cut: bool) -> Fault:
    number = anchor.partition(" ")[0]
    if not number.isdecimal():
        return Fault(max(lines, 1), f"the anchor {anchor[:80]!r} names no line")
    if int(number) <= lines:
        return Fault(int(number), "it is not the line that the anchor names")
    what = "it is cut short" if cut else "it is missing"
    return Fault(lines + 1, f"{what}: the anchor names line {number}")


def _split(ledger: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines and what is left after them; a line may lack its newline alone."""
    *lines, rest = ledger.split(b"\n")
    if rest and isinstance(_read(rest), _Link):
        return [*lines, rest], b""
    return lines, rest


def _read(line: bytes) -> _Link | _Broken:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return _Broken("it is not JSON")
    if not isinstance(found, dict) or "hash" not in found:
        return _Broken("it carries no hash")
    n, prev, torn = found.get("n"), found.get("prev"), found.get("torn")
    if not _is_sealed(found, line):
        return _Broken("it was changed: its content is not what its hash says", claims=True)
    if type(n) is not int or not isinstance(prev, str) or not isinstance(torn, str | None):
        return _Broken("it carries a hash, but no number or no tie to a line before", claims=True)
    return _Link(n, prev, str(found["hash"]), torn, found.get("action") == ACCEPT)


def _is_sealed(found: Mapping[str, Any], line: bytes) -> bool:
    try:
        return seal({key: value for key, value in found.items() if key != "hash"}) == line
    except ValueError:  # NaN, which no line holds
        return False


def _may_be_cut(piece: bytes) -> bool:
    """Tell whether a crash may have left this: the beginning of a line, but no whole object."""
    try:
        json.loads(piece)
    except (ValueError, RecursionError):
        return piece.startswith(BEGINNING[: len(piece)])
    return False


def _digest(pieces: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\n".join(pieces)).hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
