"""Reading a JSON document strictly: every refusal names the place, what is allowed, and the nearest known word.

Rules: objects have known keys only, lists and scalars have known types, numbers are finite. ``Reader`` knows the
parameters: where a scalar may be ``"$name"``, every value of that parameter has to pass the same check, so that no
trial can fail on it later.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from farm.spec.spec import ChoiceParam, IntParam, JsonObject, Param, Value
from farm.values.canon import INT_MAX
from farm.values.errors import SpecError

Check = Callable[[Any, str], Any]
DEPTH_MAX = 64


def read_document(source: str | bytes | Path | Mapping[str, Any], *, name: str = "") -> JsonObject:
    """Return the JSON object in ``source``: a path, JSON text, or an object that was read already.

    ``name``: what text that is no file is called in errors.
    Errors: SpecError for what is no JSON, duplicate keys, NaN and infinities, and objects nested too deep.
    """
    if isinstance(source, Mapping):
        document: Any = _plain(source, "", 0)
    else:
        text, name = _text(source, name)
        document = _plain(_loads(text, name), "", 0)
    if not isinstance(document, dict):
        place = name if not isinstance(source, Mapping) else ""
        raise SpecError("a spec is a JSON object", place=place, allowed='{"spec": 1, "strategy": ..., "run": ...}')
    return document


def _text(source: str | bytes | Path, name: str) -> tuple[str, str]:
    """Return the text of a document, and what to call it: the file it comes from, or ``name``."""
    if isinstance(source, str) and (not source.strip() or source.lstrip()[:1] in ("{", "[")):
        return source, name
    if isinstance(source, bytes):
        return _decoded(source, name), name
    try:
        return _decoded(Path(source).read_bytes(), str(source)), str(source)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        hint = "give the path of a JSON file, or JSON text that begins with {"
        raise SpecError(f"cannot be read: {why}", place=str(source)[:200], hint=hint) from error


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x} at {error.start}"
        raise SpecError(message, place=place, allowed="JSON in UTF-8", hint="save the file as UTF-8") from error


def _loads(text: str, name: str) -> Any:
    where = f"{name}: " if name else ""
    if not text.strip():
        raise SpecError("the spec is empty", place=name, allowed="one JSON object")
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{where}line {error.lineno}, column {error.colno}"
        hint = "look for a comma, quote or bracket that is missing or too many just before"
        raise SpecError(f"not JSON: {error.msg}", place=place, allowed="one JSON object", hint=hint) from error
    except RecursionError as error:
        raise SpecError("nested too deep", place=name, allowed=f"at most {DEPTH_MAX} levels") from error
    except ValueError as error:
        # Python refuses to read integers of thousands of digits.
        raise SpecError(f"not JSON: {error}", place=name, allowed="one JSON object") from error
    except SpecError as error:
        place = f"{where}{error.place}".removesuffix(": ")
        raise SpecError(error.message, place=place, allowed=error.allowed, hint=error.hint) from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        others = one_of(name for name in dict.fromkeys(names) if name != twice)
        raise SpecError(
            "duplicate key", place=f"{twice!r} (beside {others})" if others else repr(twice),
            allowed="each key once in an object", hint="remove one of them",
        )  # fmt: skip
    return found


def _no_constant(name: str) -> NoReturn:
    raise SpecError(f"{name} is not a number", allowed="finite numbers", hint="leave the key out, or give a number")


def _plain(value: Any, place: str, depth: int) -> Any:
    """Return a copy of plain dicts and lists, every scalar checked."""
    if depth > DEPTH_MAX:
        raise SpecError("nested too deep", place=place, allowed=f"at most {DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SpecError(f"keys are text, not {key!r}", place=place)
        return {key: _plain(item, join(place, key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{value} is not a number", place=place, allowed="finite numbers")
    if isinstance(value, int) and abs(value) > INT_MAX:
        raise SpecError(f"{value} is too large", place=place, allowed="integers up to 2**53")
    if isinstance(value, str):
        return _printable(value, place)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise SpecError(f"a {type(value).__name__} has no place in JSON", place=place)


def _printable(value: str, place: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise SpecError("text with a lone surrogate", place=place, allowed="Unicode text")
    return value


def join(place: str, key: str) -> str:
    """Return the path of ``key`` inside ``place``."""
    return f"{place}.{key}" if place else key


def near(word: object, known: Iterable[str]) -> str:
    """Return a hint with the nearest known word, or an empty hint."""
    found = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""


def one_of(words: Iterable[str]) -> str:
    """Return the words as a list for people."""
    return ", ".join(words)


def not_built(what: str, place: str, built: Iterable[str] = ()) -> SpecError:
    """Return the refusal of a part of the grammar that is known but not built yet."""
    return SpecError(f"{what} is not built yet", place=place, allowed=one_of(built))


class Reader:
    """Checks of one document. ``params`` are the values that a ``"$name"`` may stand for."""

    def __init__(self, params: Mapping[str, Param]) -> None:
        self.params = params

    def object(
        self,
        value: Any,
        place: str,
        known: Sequence[str],
        *,
        required: Sequence[str] = (),
        unbuilt: Sequence[str] = (),
    ) -> JsonObject:
        """Return ``value``, an object that has all ``required`` keys and no key that is not ``known``."""
        if not isinstance(value, dict):
            raise SpecError(f"not an object: {show(value)}", place=place, allowed="{" + one_of(known) + "}")
        for key in value:
            if key in unbuilt and key not in known:
                raise not_built(f"{key!r}", join(place, key), known)
            if key not in known:
                hint = near(key, known)
                allowed = one_of(known) or "nothing in here"
                raise SpecError("unknown key", place=join(place, key), allowed=allowed, hint=hint)
        for key in required:
            if key not in value:
                raise SpecError("required, and missing", place=join(place, key), allowed=one_of(known))
        return value

    def items(self, value: Any, place: str, *, least: int = 0, most: int | None = None) -> list[Any]:
        """Return ``value``, a list of ``least`` to ``most`` items."""
        if not isinstance(value, list):
            raise SpecError(f"not a list: {show(value)}", place=place, allowed="a list [...]")
        if len(value) < least or (most is not None and len(value) > most):
            count = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            raise SpecError(f"{len(value)} items", place=place, allowed=f"{count} items")
        return value

    def text(self, value: Any, place: str, what: str = "text") -> str:
        """Return ``value``, text that is not empty."""
        if not isinstance(value, str) or not value:
            raise SpecError(f"not {what}: {show(value)}", place=place, allowed=what)
        return value

    def word(self, value: Any, place: str, built: Iterable[str], unbuilt: Iterable[str] = ()) -> str:
        """Return ``value``, one of the ``built`` words."""
        built, unbuilt = tuple(built), tuple(unbuilt)
        if isinstance(value, str) and value in built:
            return value
        if isinstance(value, str) and value in unbuilt:
            raise not_built(repr(value), place, built)
        raise SpecError(f"unknown: {show(value)}", place=place, allowed=one_of(built), hint=near(value, built))

    def number(
        self, value: Any, place: str, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf,
        below: float = math.inf, hint: str = "",
    ) -> float:  # fmt: skip
        """Return ``value``, a number with least <= value <= most and above < value < below."""
        allowed = _range("a number", least, most, above, below)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"not a number: {show(value)}", place=place, allowed=allowed, hint=_unquoted(value))
        if not (least <= value <= most and above < value < below):
            raise SpecError(f"{show(value)} is out of range", place=place, allowed=allowed, hint=hint)
        return value

    def integer(self, value: Any, place: str, *, least: float = -INT_MAX, most: float = INT_MAX) -> int:
        """Return ``value`` as an integer with least <= value <= most; 5.0 is 5."""
        allowed = _range("an integer", least, most, -math.inf, math.inf)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise SpecError(f"not an integer: {show(value)}", place=place, allowed=allowed, hint=_unquoted(value))
        if not least <= value <= most:
            raise SpecError(f"{show(value)} is out of range", place=place, allowed=allowed)
        return int(value)

    def flag(self, value: Any, place: str) -> bool:
        """Return ``value``, true or false."""
        if not isinstance(value, bool):
            raise SpecError(f"not true or false: {show(value)}", place=place, allowed="true, false")
        return value

    def scalar(self, value: Any, place: str, check: Check) -> Any:
        """Return the checked ``value``; or ``"$name"`` itself, every value of that parameter checked."""
        if not is_hole(value):
            return check(value, place)
        for candidate in self.values_of(value, place):
            try:
                check(candidate, place)
            except SpecError as error:
                raise SpecError(
                    f"parameter {value[1:]!r} = {show(candidate)}: {error.message}",
                    place=place, allowed=error.allowed, hint=error.hint,
                ) from error  # fmt: skip
        return value

    def values_of(self, value: Any, place: str) -> tuple[Value, ...]:
        """Return the values that a scalar can take: itself, or those of its parameter (for ranges, the two ends)."""
        if not is_hole(value):
            return (value,)
        name = value[1:]
        if name not in self.params:
            raise SpecError(
                f"no parameter named {name!r}", place=place, allowed=one_of(f"${known}" for known in self.params),
                hint=near(name, self.params) or "declare it in strategy.params",
            )  # fmt: skip
        param = self.params[name]
        if isinstance(param, ChoiceParam):
            return param.values
        if isinstance(param, IntParam):
            return (param.lo, param.hi)
        # Ends of a float range that look like integers must not pass for them: what lies between does not.
        middle = param.lo + (param.hi - param.lo) * 0.3819660112501052
        return (float(param.lo), middle, float(param.hi))


def is_hole(value: Any) -> bool:
    """Whether ``value`` is a ``"$name"``, which stands for a parameter's value."""
    return isinstance(value, str) and value.startswith("$")


def show(value: Any) -> str:
    """Return ``value`` as JSON for an error message, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _unquoted(value: Any) -> str:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "numbers are written without quotes"
    return ""


def _range(what: str, least: float, most: float, above: float, below: float) -> str:
    bounds = []
    for sign, bound in ((">=", least), (">", above), ("<=", most), ("<", below)):
        if math.isfinite(bound) and abs(bound) != INT_MAX:
            bounds.append(f"{sign} {bound:.12g}")
    return " ".join([what, " and ".join(bounds)]) if bounds else what
