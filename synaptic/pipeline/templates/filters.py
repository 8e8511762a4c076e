"""The filters and tests of templates: Jinja2's, as far as they make sense in a prompt, each within bounds, and our own.

Every filter counts its work on the rendering's meter and refuses to make a text that is too long *before* it makes
it. What a filter would give piece by piece is a list here, so that it can be counted, shown and measured.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS

from synaptic.pipeline.templates.chunks import chunks
from synaptic.pipeline.templates.identifiers import JINJA_FILTERS, JINJA_TESTS, words
from synaptic.pipeline.templates.limits import MAX_BITS, Meter, TooMuch
from synaptic.pipeline.templates.values import SKIPPED, present
from synaptic.text import nearest, plural

if TYPE_CHECKING:
    from jinja2.runtime import Context

Filter: TypeAlias = Callable[..., Any]

_MAX_LIST = 100_000
_FILLED_A_UNIT = 16
_MAX_PRECISION = 300
_MAX_INDENT = 16
_MAX_ATTRIBUTE = 256
_NAMED = 1000  # an argument that is only given by its name

# What a filter makes of the output of a skipped step, where "as an empty list" is not it.
_OF_SKIPPED: Mapping[str, Any] = {
    **dict.fromkeys(words("first last min max"), SKIPPED),
    **dict.fromkeys(words("upper lower title capitalize trim replace truncate indent center wordwrap urlencode"), ""),
    **dict.fromkeys(words("list sort unique reverse"), ()),
}
_AS_EMPTY: Mapping[str, Any] = {"items": {}, "dictsort": {}, "chunks": []}
_AS_MISSING = frozenset({"d", "default"})
_CONSTANT_TIME = words("count length first last d default items")
# Tests that go over the whole value.
_TESTS_OF_ALL = words("lower upper in")
# Filters that call a Python function for each item; several times, where they sort.
_CALLS_AN_ITEM = {**dict.fromkeys(words("sort dictsort groupby"), 8), **dict.fromkeys(words("unique min max sum"), 2)}


# The place among a filter's arguments, behind the value, of the name of an attribute: a path, or several of them.
_ATTRIBUTE_AT = {
    "map": _NAMED,
    "sort": 2,
    **dict.fromkeys(words("unique min max join"), 1),
    **dict.fromkeys(words("groupby sum selectattr rejectattr"), 0),
}
# Filters that make whole numbers, and tests that calculate with them.
_MAKES_NUMBERS = words("int abs round sum")
_TESTS_OF_NUMBERS = words("odd even divisibleby")


class Data(str):
    """Text that was filled into a template: ``str()`` keeps it apart from the template's own text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


def meter_of(context: Context) -> Meter:
    """Return the meter of the rendering that the context belongs to."""
    meter: Meter = context.meter  # type: ignore[attr-defined]  # MeteredContext in sandbox.py; importing it is a circle
    return meter


@jinja2.pass_context
def finalize(context: Context, value: Any) -> str:
    """Return the text of ``{{ value }}``."""
    meter = meter_of(context)
    if value.__class__ is str:
        meter.spend_on_text(len(value))
        text: str = value
    else:
        text = shown(meter, value)
    meter.emit(len(text))
    return Data(text)


def shown(meter: Meter, value: Any) -> str:
    """Return a value as text, within bounds.

    Raises:
        TooMuch: If the text would be too long.
        TypeError: If the value is a function, or has one in it, which no prompt shows on purpose.
    """
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and says what is missing
    meter.weigh_shown(value)
    return present(value)


def make_filters() -> dict[str, Any]:
    """Return every filter by its name."""
    own: dict[str, Filter] = {
        "json": _json,
        "tojson": _json,
        "bullets": _text,
        "string": _text,
        "chunks": chunks,
        "join": _join,
        "sum": _sum,
        "format": _format,
    }
    jinja: dict[str, Any] = {name: FILTERS[name] for name in JINJA_FILTERS}
    return {name: _guarded(name, function) for name, function in {**jinja, **own}.items()}


def make_tests() -> dict[str, Any]:
    """Return every test by its name."""
    jinja: dict[str, Any] = {name: TESTS[name] for name in JINJA_TESTS}
    tests: dict[str, Any] = {name: _guarded_test(name, function) for name, function in jinja.items()}
    tests["none"] = lambda value: value is None or value is SKIPPED
    tests["skipped"] = lambda value: value is SKIPPED
    return tests


def _guarded(name: str, function: Filter) -> Filter:
    kind = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    bound = _BOUNDS.get(name)
    light = name in _CONSTANT_TIME
    calls = _CALLS_AN_ITEM.get(name, 0)
    at = _ATTRIBUTE_AT.get(name)

    @jinja2.pass_context
    def call(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        if value is SKIPPED:
            if name in _OF_SKIPPED:
                return _OF_SKIPPED[name]
            value = context.environment.undefined() if name in _AS_MISSING else _AS_EMPTY.get(name, value)
        if light:
            meter.spend(2)
        else:
            items = meter.weigh(value).items
            meter.spend(items * calls)
            if at is not None:
                meter.spend(items * _attribute_parts(kwargs.get("attribute", args[at] if at < len(args) else None)))
        for argument in (*args, *kwargs.values()):
            meter.weigh(argument)
        if bound is not None:
            bound(meter, value, *args, **kwargs)
        if kind is not None:
            first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[kind]
            args = (value, *args)
            value = first
        result = settled(meter, function(value, *args, **kwargs))
        if name in _MAKES_NUMBERS:
            refuse_enormous(result)
        return result

    return functools.update_wrapper(call, function, assigned=(), updated=())


def _guarded_test(name: str, function: Filter) -> Filter:
    whole = name in _TESTS_OF_ALL
    numbers = name in _TESTS_OF_NUMBERS

    @jinja2.pass_context
    def call(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        meter.spend(1)
        for argument in (value, *args, *kwargs.values()) if whole else (*args, *kwargs.values()):
            meter.weigh(argument)
        for number in (value, *args) if numbers else ():
            refuse_enormous(number)
        return function(value, *args, **kwargs)

    return call


def settled(meter: Meter, result: Any) -> Any:
    """Return a result that holds still: counted, no longer than a text may be, and a list where it was a stream."""
    if isinstance(result, str):
        meter.allow_text(len(result))
        return result
    if isinstance(result, list):
        meter.spend(len(result))
    elif isinstance(result, Iterator):
        items = []
        for item in result:
            meter.spend(1)
            items.append(item)
        return items
    return result


def refuse_enormous(value: Any) -> None:
    """Refuse a number that would make every calculation with it slow."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TooMuch("templates calculate with numbers of ordinary size only")


def _attribute_parts(attribute: Any) -> int:
    """Return how many names an attribute's path has; all of them are looked up in every item."""
    if not isinstance(attribute, str):
        return 0
    if len(attribute) > _MAX_ATTRIBUTE:
        raise TooMuch(f"the name of an attribute has at most {_MAX_ATTRIBUTE} characters")
    return attribute.count(".") + attribute.count(",")


def complaint_about_arguments(
    function: Filter, positional: int, keywords: Collection[str]
) -> tuple[str, str | None] | None:
    """Return what is wrong with the arguments that a template gives to a filter, and what to write; else ``None``."""
    parameters = _parameters(function)
    if any(parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} for parameter in parameters):
        return None
    names = [parameter.name for parameter in parameters]
    for keyword in keywords:
        if keyword not in names:
            return f"has no argument {keyword!r}", _meant_argument(keyword, names)
        if keyword in names[:positional]:
            return f"is given {keyword!r} twice", "leave one out"
    if positional > len(names):
        most = f"takes at most {plural(len(names), 'argument')}" if names else "takes no argument"
        return f"{most}, not {positional}", f"they are {', '.join(names)}" if names else "leave the brackets out"
    for parameter in parameters[positional:]:
        if parameter.default is parameter.empty and parameter.name not in keywords:
            return f"needs the argument {parameter.name!r}", f"write {parameter.name}=… in its brackets"
    return None


def _meant_argument(keyword: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"write {names[0]}=…"
    if not names:
        return "leave the brackets out"
    near = nearest(keyword, names)
    return f"did you mean {near!r}?" if near else "write the value without a name before it"


@functools.cache
def _parameters(function: Filter) -> tuple[inspect.Parameter, ...]:
    """Return what a template may give to the filter, beside the value before the ``|``."""
    parameters = list(inspect.signature(function).parameters.values())  # follows __wrapped__ to the filter itself
    inner = inspect.unwrap(function)
    passed = getattr(inner, "jinja_pass_arg", None) is not None
    return tuple(parameters[1 + passed :])


@jinja2.pass_context
def _json(context: Context, value: Any, indent: int | None = None) -> str:
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and says what is missing
    meter = meter_of(context)
    size = meter.weigh_shown(value)
    if indent is not None:
        indent = max(0, min(int(indent), _MAX_INDENT))
        meter.allow_text(size.characters + size.items * (indent * size.depth + 1))
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_json_of)


def _json_of(value: Any) -> Any:
    if value is SKIPPED:
        return None
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__!r} cannot be written as JSON")


@jinja2.pass_context
def _text(context: Context, value: Any) -> str:
    return shown(meter_of(context), value)


@jinja2.pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    meter = meter_of(context)
    items = [item for item in _attribute_of(context, value, attribute) if item is not SKIPPED]
    size = meter.weigh_shown(items)
    meter.allow_text(size.characters + len(items) * len(str(d)))
    return str(d).join(str(item) if isinstance(item, jinja2.Undefined) else present(item) for item in items)


@jinja2.pass_context
def _sum(context: Context, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """Return the sum of numbers; of lists, from ``start=[]``, one list of all their items."""
    if isinstance(start, (list, tuple)):
        return _one_list(context, [start, *_attribute_of(context, value, attribute)])
    if not isinstance(start, (int, float)):
        raise TypeError("'sum' adds numbers; write | join for text")
    return sum(_attribute_of(context, value, attribute), start)


def _one_list(context: Context, parts: list[Any]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        if not isinstance(part, (list, tuple)):
            raise TypeError(f"'sum' from a list adds lists, not {type(part).__name__}")
        meter_of(context).spend(len(part) + 1)
        found.extend(part)
    return found


def _attribute_of(context: Context, value: Any, attribute: str | int | None) -> Any:
    if attribute is None:
        return value
    return map(make_attrgetter(context.environment, attribute), value)


@jinja2.pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    return format_text(meter_of(context), str(value), kwargs or args)


_CONVERSION = re.compile(r"%(?:\(([^()]*)\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.)", re.DOTALL)


def format_text(meter: Meter, template: str, values: Any) -> str:
    """Return ``template % values``, after looking at how wide its fields are.

    Raises:
        TooMuch: If the text would be too long.
    """
    widest, fields = 0, 0
    for match in _CONVERSION.finditer(template):
        for digits in match.group(2, 3):
            if digits == "*":
                raise TooMuch("a width of '*' is not possible here; write the width as a number")
            widest += int(digits[:12]) if digits else 0
        if match.group(4) == "(":  # Python pairs brackets in a name; what follows such a name would not be looked at
            raise ValueError("a name after % stands in one pair of brackets, as in %(name)s")
        fields += 1
    size = meter.weigh_shown(values)
    repeated = fields if isinstance(values, Mapping) else 1
    meter.allow_text(len(template) + widest + size.characters * repeated)
    text: str = template % values
    return text


def _bound_center(meter: Meter, _value: Any, width: int = 80) -> None:
    meter.allow_text(width)


def _bound_indent(meter: Meter, value: Any, width: int | str = 4, *_: Any, **__: Any) -> None:
    lines = str(value).count("\n") + 1
    meter.allow_text(len(str(value)) + lines * (len(width) if isinstance(width, str) else width))


def bound_replace(meter: Meter, value: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    """Refuse a replacement that makes a text too long."""
    text = str(value)
    meter.allow_text(len(text) + text.count(str(old)) * len(str(new)))


def _bound_pieces(meter: Meter, _value: Any, count: int = 1, *_args: Any, **kwargs: Any) -> None:
    most = max(count, kwargs.get("linecount", 0), kwargs.get("slices", 0))
    if most > _MAX_LIST:
        raise TooMuch(f"lists of more than {_MAX_LIST:,} items are not made here")
    meter.spend(max(most, 0) // _FILLED_A_UNIT)


def _bound_round(_: Meter, _value: Any, precision: int = 0, *_args: Any) -> None:
    if abs(precision) > _MAX_PRECISION:
        raise TooMuch(f"numbers are rounded to at most {_MAX_PRECISION} digits")


def bound_strip(meter: Meter, value: Any, chars: Any = None) -> None:
    """Count what ``strip`` does: it looks for each character among all of ``chars``."""
    if chars is not None:
        meter.spend_on_text(len(str(value)) * len(str(chars)))


_WORDS_AND_GAPS = re.compile(r"[\t\n\x0b\x0c\r ]+|[^\t\n\x0b\x0c\r ]+")  # as textwrap has them


def _bound_wordwrap(
    meter: Meter, value: Any, width: int = 79, *args: Any, wrapstring: str | None = None, **_: Any
) -> None:
    text = str(value)
    wrap = wrapstring or next((argument for argument in args if isinstance(argument, str)), "\n")
    lines = len(text) // max(width, 1) + text.count("\n") + 1
    # Long words, and long gaps, are cut off one line at a time, and what is left of them is copied.
    longest = max(map(len, _WORDS_AND_GAPS.findall(text)), default=0)
    meter.spend(lines * (1 + longest // 256))
    meter.allow_text(len(text) + lines * len(wrap))


_BOUNDS: Mapping[str, Callable[..., None]] = {
    "batch": _bound_pieces,
    "center": _bound_center,
    "indent": _bound_indent,
    "replace": bound_replace,
    "round": _bound_round,
    "slice": _bound_pieces,
    "trim": bound_strip,
    "wordwrap": _bound_wordwrap,
}
