"""What each source gives: a file, the environment, ``--set``, flags, and what its text means by the field's type.

Every mistake is collected, none raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.errors import ConfigError, Problem
from synaptic.settings.check import BOOLEANS, ENV_PREFIX, Form, Given, example_of, problem_at, problems_of, write_as
from synaptic.settings.legacy import ALIASES, IGNORED, LegacyValues, legacy_values, successor_name
from synaptic.settings.model import WHERE_LISTED, FieldKind, Settings, field_kind, table_fields
from synaptic.settings.trusted import VARIABLE
from synaptic.text import did_you_mean, excerpt, is_unicode, nearest, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.text import JsonDocument

OTHER_VARIABLES: Mapping[str, str] = {
    "SYNAPTIC_CONFIG_FILE": "settings file to read instead of `~/.synapticllamas.json`, as `--config`",
    VARIABLE: "`1` trusts the folder for this call, as `--trust-folder`",
}
"""Variables that begin like settings and are none, with their meaning."""

_KEY = re.compile(r"[\w.-]*")


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source gives. ``ignored`` are (source, key) of the older program that have no use here."""

    givens: tuple[Given, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()


def file_layer(document: JsonDocument) -> Layer:
    """Return what a settings file gives, under today's names, the alias and the older program's names."""
    old = legacy_values(document)
    givens: list[Given] = []
    problems: list[Problem] = [*document.problems, *old.problems]
    for key, value in document.value.items():
        given = Given((ALIASES.get(key, key),), value, document.source, Form.FILE, document, (key,))
        if given.path[0] in Settings.model_fields:
            givens.extend(_entries(given))
        elif successor_name(key) is None and key not in IGNORED:
            suggestion = did_you_mean(key, Settings.model_fields, listing=WHERE_LISTED)
            problems.append(problem_at(given, f"unknown setting {excerpt(key)!r}", suggestion))
    return _checked([*old.givens, *givens], problems, tuple((document.source, key) for key in old.ignored))


def legacy_layer(source: str, values: LegacyValues) -> Layer:
    """Return what the nodes file of the older program gives."""
    return _checked(list(values.givens), list(values.problems), tuple((source, key) for key in values.ignored))


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return what the ``SYNAPTIC_*`` variables give; one that is not a setting is a mistake."""
    givens: list[Given] = []
    problems: list[Problem] = []
    if environ.get(VARIABLE, "").strip().lower() not in {"", *BOOLEANS}:
        problems.append(Problem("must be true or false", VARIABLE, suggestion=f"write {VARIABLE}=1, or unset it"))
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        name = ALIASES.get(key, key)
        if name in Settings.model_fields and variable == ENV_PREFIX + key.upper():
            _take(Given((name,), environ[variable], variable, Form.VARIABLE, written=(key,)), givens, problems)
        else:
            problems.append(Problem("unknown variable", excerpt(variable), suggestion=_variable_meant(variable, key)))
    return _checked(givens, problems)


def argument_layer(overrides: Sequence[str], *, source: str = "--set") -> Layer:
    """Return what ``KEY=VALUE`` arguments give; a later one wins over an earlier one."""
    givens: list[Given] = []
    problems: list[Problem] = []
    for override in overrides:
        key, separator, text = override.partition("=")
        key = key.strip()
        if not separator:
            match = _KEY.match(key)
            start = f"{excerpt(match.group())!r} " if match and match.group() else ""
            problems.append(
                Problem(f"{start}has no '='", source, suggestion="write KEY=VALUE, as in model=llama3.1:8b")
            )
            continue
        given = _argument(key, text, source)
        if isinstance(given, Problem):
            problems.append(given)
        else:
            _take(given, givens, problems)
    return _checked(givens, problems)


def flag_layer(flags: Mapping[str, tuple[str, Any]]) -> Layer:
    """Return what flags of their own give: setting -> (flag, value); a value of ``None`` was not given."""
    givens = [
        Given((name,), value, flag, Form.FLAG, written=(name,))
        for name, (flag, value) in flags.items()
        if value is not None
    ]
    return _checked(givens, [])


def _argument(key: str, text: str, source: str) -> Given | Problem:
    name, dot, entry = key.partition(".")
    path = (ALIASES.get(name, name), *([entry] if dot else []))
    if path[0] in Settings.model_fields and not dot:
        return Given(path, text, source, Form.ARGUMENT, written=(name,))
    if path[0] in table_fields() and entry and is_unicode(entry):
        return Given(path, text, source, Form.ARGUMENT, written=path)
    if path[0] in Settings.model_fields:
        whole = f"write {path[0]}.NAME=VALUE" if path[0] in table_fields() else f"write {path[0]}=VALUE"
        return Problem(f"{excerpt(key)!r} is not part of a setting", source, suggestion=whole)
    now = successor_name(name)
    meant = did_you_mean(key, Settings.model_fields, listing=WHERE_LISTED)
    suggestion = f"write {now}, its name today" if now else meant
    return Problem(f"unknown setting {excerpt(key)!r}", source, suggestion=suggestion)


def _variable_meant(variable: str, key: str) -> str:
    now = successor_name(key)
    if now is not None and now in Settings.model_fields:
        return f"write {ENV_PREFIX}{now.upper()}, its name today"
    known = [ENV_PREFIX + name.upper() for name in Settings.model_fields] + list(OTHER_VARIABLES)
    match = nearest(variable.upper(), known)
    return f"did you mean {match}?" if match else "unset it, or name a setting after SYNAPTIC_"


def _take(given: Given, givens: list[Given], problems: list[Problem]) -> None:
    """Add a value that was written as text, once it is known what the text means."""
    name = given.path[0]
    if not is_unicode(given.value):
        problems.append(problem_at(given, f"the value of {name} is not UTF-8 text", "write it in UTF-8"))
        return
    try:
        entry = len(given.path) > 1
        value = decode_entry(name, given.value) if entry else decode_setting(name, given.value)
    except ConfigError as exc:
        if '"' not in given.value and _WORDS.search(given.value):
            instead = write_as(given.form, given.source, given.path, example_of(given.path))
            cure = f"put the whole value into single quotes, or {instead}"
            problems.append(
                problem_at(given, f"the JSON of {name} has no double quotes, which a shell takes away", cure)
            )
            return
        problems.extend(
            Problem(
                f"{name}: {problem.message} (line {problem.line}, column {problem.column} of the value)",
                given.source,
                suggestion=problem.suggestion,
            )
            for problem in exc.problems
        )
    else:
        givens.append(replace(given, value=value))


def _entries(given: Given) -> list[Given]:
    """Return a table's entries one by one, so that files can add to one another; anything else as it is."""
    if given.path[0] not in table_fields() or not isinstance(given.value, dict):
        return [given]
    return [
        replace(given, path=(*given.path, key), value=value, written=(*given.written, key), origin_key=given.written)
        for key, value in given.value.items()
    ]


def _checked(givens: list[Given], problems: list[Problem], ignored: tuple[tuple[str, str], ...] = ()) -> Layer:
    found = [*problems, *_contradictions(givens)]
    for given in givens:
        found.extend(problems_of(given))
    return Layer(tuple(givens), tuple(sorted(found, key=_order)), ignored)


def _order(problem: Problem) -> tuple[int, int]:
    return (problem.line or 0, problem.column or 0)


def _contradictions(givens: list[Given]) -> list[Problem]:
    """Return a problem for each setting that one source gives twice, by its name and by its alias, with two values."""
    problems = []
    for alias, name in ALIASES.items():
        same = [given for given in givens if given.path == (name,)]
        by_alias = [given for given in same if given.written == (alias,)]
        by_name = [given for given in same if given.written == (name,)]
        if by_alias and by_name and by_alias[-1].value != by_name[-1].value:
            message = f"{alias} is the older name of {name}, and the two contradict each other here"
            problems.append(problem_at(by_alias[-1], message, f"remove {alias}"))
    return problems


_NOTHING = {"", "none", "null"}
_WORDS = re.compile(r"[A-Za-z:]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,3})?")


def decode_setting(name: str, text: str) -> Any:
    """Return what ``text`` means for the setting ``name``.

    Text that does not mean anything of the right type is returned as it is: validation then says what was expected.

    Raises:
        ConfigError: If it begins like a JSON list or object and is broken.
    """
    kind = field_kind(Settings.model_fields[name].annotation)
    word = text.strip().lower()
    if kind.optional and (word in _NOTHING or (word == "off" and kind.base in {int, float})):
        return None
    if kind.base is str:
        return text
    return _decode(kind, text.strip())


def decode_entry(table: str, text: str) -> Any:
    """Return what ``text`` means for an entry: text for ``agent_models``, else JSON where it is JSON."""
    if table == "agent_models":
        return text
    try:
        return _json(text)
    except ConfigError:
        return text


def _json(text: str) -> Any:
    document = parse_json(text, "")
    if document.problems:
        raise ConfigError.of(document.problems)
    return document.value


def _decode(kind: FieldKind, text: str) -> Any:
    if kind.base is bool:
        return BOOLEANS.get(text.lower(), text)
    if kind.base in {int, float} and _INTEGER.fullmatch(text):
        return int(text)
    if kind.base is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if text.startswith(("[", "{")):
        return _json(text)
    if kind.base is list:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text
