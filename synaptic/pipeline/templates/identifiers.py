"""The names that the template language knows: functions, methods, filters and tests, beside what a pipeline gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


GLOBALS = ("namespace", "range")
"""Every function that a template may call."""

TEXT_METHODS = words(
    """capitalize casefold count endswith find index isalnum isalpha isdigit islower isspace istitle isupper join lower
    lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith strip
    swapcase title upper"""
)
LIST_METHODS = words("count index")
MAPPING_METHODS = words("get items keys values")
LOOP_METHODS = words("changed cycle")
METHODS = TEXT_METHODS | LIST_METHODS | MAPPING_METHODS | LOOP_METHODS
"""Every method that a template may call: none changes anything, none makes a text much longer than it was given."""

JINJA_FILTERS = words(
    """abs batch capitalize center count d default dictsort filesizeformat first float groupby indent int items last
    length list lower map max min reject rejectattr replace reverse round select selectattr slice sort title trim
    truncate unique upper urlencode wordcount wordwrap"""
)
"""Filters that are Jinja2's own; others of the same or other names are ours."""
JINJA_TESTS = words(
    """odd even divisibleby defined undefined boolean false true integer float lower upper string mapping number
    sequence iterable in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le"""
)

_NO_HTML = "prompts are no HTML"
REFUSED_FILTERS: Mapping[str, str] = {
    "attr": "write x.name or x['name']",
    "random": "a run that is repeated must ask the same",
    "pprint": "write | json",
    "e": _NO_HTML,
    "escape": _NO_HTML,
    "forceescape": _NO_HTML,
    "safe": _NO_HTML,
    "striptags": _NO_HTML,
    "urlize": _NO_HTML,
    "xmlattr": _NO_HTML,
}
"""Filters of Jinja2 that are not here, and what to do instead or why."""

RESERVED = frozenset({"inputs", "steps", "run", "previous", "loop", *GLOBALS})
"""Names that a template must not give another meaning."""
