"""From a spec to its trials: resolved documents, their hashes, and the template's hash.

A resolved spec is ``{"spec", "run", "strategy"}`` with defaults written in, parameters substituted and the children of
``all`` and ``any`` sorted by their own hash; its hash is the SHA-256 of its canonical JSON (RFC 8785). A cell's
has that one instrument as its universe. Source: domain.md 2, 3.7.

Speed: the template is turned into canonical text with holes once. A trial fills the holes; only children of ``all`` and
``any`` that hold parameters are sorted again, and each of those is rendered once per value of its own parameters. A
cell splices its instrument into the trial's text, of which everything before has been hashed already:

    {"run":...,"spec":1,"strategy":{"sleeves":[...],"universes":[{"id":"u","tickers":[ | "AAPL" | ]}]}}
     <------------- head, hashed once per trial ------------------------------------->        <-tail->
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from farm.spec.grammar import SPEC_VERSION
from farm.spec.params import check_params
from farm.spec.parse_study import study_document
from farm.spec.reader import is_hole
from farm.spec.spec import ChoiceParam, IntParam, JsonObject, Param, RunSpec, StudySpec, Value
from farm.spec.table import holes
from farm.values.canon import canonical_json, fingerprint, sha256_hex
from farm.values.version import NUMERICS_PROFILE, SEMANTICS_VERSION

_MEMO_MAX = 65_536
_EACH = "each"


@dataclass(frozen=True)
class Template:
    """The resolved spec with ``$p`` kept; ``hash`` names the family of its cells.

    The hash also covers the versions of semantics and numerics, and leaves the window out: reads have it. ``params``:
    the parameters that the template uses, sorted; the values of others are no part of a trial's identity.
    """

    document: JsonObject
    hash: str
    params: tuple[str, ...]


def template(spec: StudySpec) -> Template:
    """Return the template. In an ``each`` study the universe's members are no part of it: each cell has its own."""
    document = filled(_document(spec), {})
    if spec.each is not None:
        for universe in document["strategy"]["universes"]:
            universe["tickers"] = _EACH
    run = {key: value for key, value in document["run"].items() if key not in ("start", "end")}
    versions = {"numerics": NUMERICS_PROFILE, "semantics": SEMANTICS_VERSION}
    family = fingerprint({"template": document | {"run": run}, **versions})
    return Template(document, family, tuple(sorted(holes(document["strategy"]))))


def study_identity(spec: StudySpec) -> JsonObject:
    """Return all of a spec that decides a study's trials, cells and ranking, as one document to be hashed.

    ``name`` and ``note`` are left out, and ``run.dataset`` too: the snapshot names the data.
    """
    identity: JsonObject = {
        "template": filled(_document(spec), {}),
        "params": {name: _param_document(param) for name, param in spec.strategy.params.items()},
        "constraints": list(spec.strategy.constraints),
    }
    if spec.study is not None:
        identity["study"] = study_document(spec.study)
    return identity


def _param_document(param: Param) -> JsonObject:
    if isinstance(param, ChoiceParam):
        return {"choice": list(param.values)}
    if isinstance(param, IntParam):
        return {"int": [param.lo, param.hi, param.step]}
    return {"float": [param.lo, param.hi], "log": param.log}


def resolve(spec: StudySpec, params: Mapping[str, Value], instrument: str | None) -> JsonObject:
    """Return the resolved document of one trial, or of one of its cells. ``instrument`` is the ticker, with each."""
    return Resolver(spec).trial(params).document(instrument)


def filled(document: Any, params: Mapping[str, Value]) -> Any:
    """Return a copy of a part of the template as resolved: values in place of "$name" where there are some, and the
    children of all and any in the order of their hashes."""
    if isinstance(document, dict):
        copy = {key: filled(item, params) for key, item in document.items()}
        for key in _unordered(document):
            copy[key].sort(key=fingerprint)
        return copy
    if isinstance(document, list):
        return [filled(item, params) for item in document]
    return params.get(document[1:], document) if is_hole(document) else document


def fixed_tickers(spec: StudySpec) -> frozenset[str]:
    """Return the tickers that expressions name with ``sym``, in any trial: every instrument looks at these."""
    found: set[str] = set()

    def visit(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            visit([item for key, item in value.items() if key != "sym"])
            if "sym" in value:
                sym = str(value["sym"])
                param = spec.strategy.params[sym[1:]] if is_hole(sym) else None
                found.update(map(str, param.values) if isinstance(param, ChoiceParam) else (sym,))

    visit(spec.strategy.template)
    return frozenset(found)


def _document(spec: StudySpec) -> JsonObject:
    return {"spec": SPEC_VERSION, "run": spec.run_document, "strategy": spec.strategy.template}


def _unordered(value: JsonObject) -> tuple[str, ...]:
    """Return the keys whose list of children is a set. Templates hold no key that a user chose."""
    return tuple(key for key in ("all", "any") if isinstance(value.get(key), list))


@dataclass(frozen=True, eq=False)
class ResolvedTrial:
    """One trial: its canonical text around the place of the instrument.

    ``head`` and ``tail``: canonical JSON in UTF-8. Without each they are the whole document when put together, with
    each a ticker belongs between them. ``params`` are the values in it.
    """

    params: Mapping[str, Value]
    head: bytes
    tail: bytes
    is_each: bool
    run: RunSpec

    @cached_property
    def _hashed(self) -> Any:
        return hashlib.sha256(self.head)

    def cell_hash(self, instrument: str | None) -> str:
        """Return the hash of the resolved spec of the cell of this ticker; None for a trial without each."""
        hashed = self._hashed.copy()
        hashed.update(self._spliced(instrument) + self.tail)
        return str(hashed.hexdigest())

    def text(self, instrument: str | None) -> bytes:
        """Return the canonical JSON of the resolved spec."""
        return self.head + self._spliced(instrument) + self.tail

    def document(self, instrument: str | None) -> JsonObject:
        """Return the resolved spec."""
        found: JsonObject = json.loads(self.text(instrument))
        return found

    def _spliced(self, instrument: str | None) -> bytes:
        if self.is_each != (instrument is not None):
            raise ValueError("a cell of an each study has an instrument, a trial without each has none")
        return b"" if instrument is None else json.dumps(instrument, ensure_ascii=False).encode()


class Resolver:
    """Resolves the trials of one spec. Threads may share it."""

    def __init__(self, spec: StudySpec) -> None:
        self._params = spec.strategy.params
        self._run = spec.run
        self._is_each = spec.each is not None
        head, tail = _pieces(_document(spec), is_each=self._is_each)
        self._head, self._tail = _Text(head), _Text(tail)

    def trial(self, params: Mapping[str, Value]) -> ResolvedTrial:
        """Return the trial of these parameter values; SpecError if they are not among the declared ones."""
        check_params(self._params, params)
        texts = {name: canonical_json(value).decode() for name, value in params.items()}
        return ResolvedTrial(
            dict(params), self._head.fill(texts).encode(), self._tail.fill(texts).encode(), self._is_each, self._run
        )


@dataclass(frozen=True)
class _Hole:
    """The place of a parameter's value."""

    name: str


@dataclass(frozen=True)
class _Cut:
    """The place of the instrument."""


class _Set:
    """Children of all or any that hold parameters: filled, then sorted by their hashes."""

    def __init__(self, children: tuple[_Text, ...]) -> None:
        self.children = children
        self.names: tuple[str, ...] = tuple(sorted({name for child in children for name in child.names}))

    def fill(self, texts: Mapping[str, str]) -> str:
        filled = [child.fill_hashed(texts) for child in self.children]
        filled.sort()
        return ",".join(text for _, text in filled)


class _Text:
    """Canonical text with holes; ``names`` are the parameters in it."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self.pieces = _merged(pieces)
        names = {piece.name for piece in self.pieces if isinstance(piece, _Hole)}
        names |= {name for piece in self.pieces if isinstance(piece, _Set) for name in piece.names}
        self.names: tuple[str, ...] = tuple(sorted(names))
        self._memo: dict[tuple[str, ...], tuple[str, str]] = {}

    def fill(self, texts: Mapping[str, str]) -> str:
        """Return the text with the canonical texts of values in its holes."""
        return "".join(
            piece if isinstance(piece, str) else texts[piece.name] if isinstance(piece, _Hole) else piece.fill(texts)
            for piece in self.pieces
        )

    def fill_hashed(self, texts: Mapping[str, str]) -> tuple[str, str]:
        """Return (hash, text), made once per set of values."""
        values = tuple(texts[name] for name in self.names)
        known = self._memo.get(values)
        if known is None:
            text = self.fill(texts)
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            known = self._memo[values] = (sha256_hex(text.encode()), text)
        return known


_Piece = str | _Hole | _Set


def _merged(pieces: list[_Piece]) -> tuple[_Piece, ...]:
    merged: list[_Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def _pieces(document: JsonObject, *, is_each: bool) -> tuple[list[_Piece], list[_Piece]]:
    """Return the pieces before and after the place of the instrument; without each the second part is empty."""
    head: list[_Piece] = []
    tail: list[_Piece] = []
    into = head
    if is_each:
        universes = [{**universe, "tickers": _Cut()} for universe in document["strategy"]["universes"]]
        document = {**document, "strategy": {**document["strategy"], "universes": universes}}
    for piece in _walk(document):
        if isinstance(piece, _Cut):
            head.append("[")
            tail.append("]")
            into = tail
        else:
            into.append(piece)
    return head, tail


def _walk(value: Any) -> Iterator[_Piece | _Cut]:
    """Yield the canonical text of ``value``, keys in RFC 8785 order (all keys of a template are ASCII)."""
    if isinstance(value, _Cut):
        yield value
    elif is_hole(value):
        yield _Hole(value[1:])
    elif isinstance(value, dict):
        unordered = _unordered(value)
        for position, key in enumerate(sorted(value)):
            yield f'{"," if position else "{"}"{key}":'
            if key in unordered:
                yield "["
                yield _set(value[key])
                yield "]"
            else:
                yield from _walk(value[key])
        yield "}" if value else "{}"
    elif isinstance(value, list):
        yield "["
        for position, item in enumerate(value):
            if position:
                yield ","
            yield from _walk(item)
        yield "]"
    else:
        yield canonical_json(value).decode()


def _set(children: list[Any]) -> _Piece:
    texts = tuple(_Text([piece for piece in _walk(child) if not isinstance(piece, _Cut)]) for child in children)
    unordered = _Set(texts)
    return unordered if unordered.names else unordered.fill({})
