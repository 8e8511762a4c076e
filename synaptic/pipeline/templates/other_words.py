"""What other languages call the things that a template can do, and how they are written here."""

from __future__ import annotations

from typing import Final

from synaptic.pipeline.templates.identifiers import words

_LENGTH: Final = "write x | length"
_IN: Final = "write 'part' in x"

OTHER_CONSTANTS: Final = {
    **dict.fromkeys(words("null nil undefined NULL Null NIL NONE"), "none"),
    **dict.fromkeys(words("TRUE yes Yes YES"), "true"),
    **dict.fromkeys(words("FALSE no No NO"), "false"),
}

OTHER_ROOTS: Final = {
    **dict.fromkeys(
        words("outputs output results result nodes node tasks task jobs job step stages needs agents"), "steps"
    ),
    **dict.fromkeys(
        words("input params param args arg arguments parameters vars var variables variable env secrets github matrix"),
        "inputs",
    ),
    **dict.fromkeys(words("each it element current this item_ loop_item"), "item"),
    **dict.fromkeys(words("last prev before"), "previous"),
}
"""Names that begin a reference elsewhere, and the root that is meant."""

OTHER_FIELDS: Final = {
    **dict.fromkeys(words("length size count len"), "write {shown} | length"),
    **dict.fromkeys(words("first last"), "write {shown} | {name}"),
}
"""Of lists and texts."""

OTHER_FILTERS: Final = {
    **dict.fromkeys(words("size len"), "write | length"),
    **dict.fromkeys(words("lowercase downcase tolower to_lower"), "write | lower"),
    **dict.fromkeys(words("uppercase upcase toupper to_upper"), "write | upper"),
    **dict.fromkeys(words("to_json to_nice_json dump dumps stringify yaml to_yaml"), "write | json"),
    **dict.fromkeys(
        words("from_json fromjson from_yaml parse"), "give the step an 'output', which makes data of its reply"
    ),
    **dict.fromkeys(words("strip trim_whitespace"), "write | trim"),
    **dict.fromkeys(words("str to_s tostring"), "write | string"),
    **dict.fromkeys(words("sorted sort_by"), "write | sort, or | sort(attribute='name')"),
    **dict.fromkeys(words("concat implode"), "write | join(', ')"),
    **dict.fromkeys(words("number to_number tonumber num"), "write | float, or | int"),
    **dict.fromkeys(words("limit take head"), "write x[:3]"),
    **dict.fromkeys(words("ternary iif"), "write A if condition else B"),
    **dict.fromkeys(words("regex_replace sub gsub"), "write | replace('old', 'new')"),
    **dict.fromkeys(words("contains includes regex_search search match"), _IN),
    **dict.fromkeys(words("where filter"), "write | selectattr('name', '==', 'value')"),
    **dict.fromkeys(words("pluck"), "write | map(attribute='name')"),
    **dict.fromkeys(words("or coalesce ifempty if_empty fallback"), "write | default('…', true), or x or y"),
    "split": "write x.split(',')",
    "uniq": "write | unique",
    "average": "write (x | sum) / (x | length)",
}

OTHER_TESTS: Final = {
    **dict.fromkeys(words("null nil undef"), "write none"),
    **dict.fromkeys(words("empty blank"), "write not x"),
    **dict.fromkeys(words("present filled nonempty"), "write x alone: what is empty counts as false"),
    **dict.fromkeys(words("greater bigger more above over"), "write >"),
    **dict.fromkeys(words("less smaller below under"), "write <"),
    **dict.fromkeys(words("equal equals same"), "write =="),
    **dict.fromkeys(words("contains containing"), _IN),
    **dict.fromkeys(words("str text"), "write string"),
    **dict.fromkeys(words("int"), "write integer"),
    **dict.fromkeys(words("bool"), "write boolean"),
    **dict.fromkeys(words("dict object"), "write mapping"),
    **dict.fromkeys(words("list array"), "write sequence"),
    **dict.fromkeys(
        words("failed failure succeeded success changed"), "ask whether the step was skipped: x is skipped"
    ),
}

OTHER_METHODS: Final = {
    **dict.fromkeys(words("length size len"), _LENGTH),
    **dict.fromkeys(words("contains includes has"), _IN),
    **dict.fromkeys(words("tolowercase downcase"), "write x.lower()"),
    **dict.fromkeys(words("touppercase upcase"), "write x.upper()"),
    **dict.fromkeys(words("tostring tos str"), "write x | string"),
    **dict.fromkeys(words("append push add extend"), "write x + [item]"),
    **dict.fromkeys(words("map"), "write x | map(attribute='name')"),
    **dict.fromkeys(words("filter"), "write x | select('test')"),
    **dict.fromkeys(words("slice substring substr"), "write x[1:3]"),
    **dict.fromkeys(words("trim"), "write x.strip()"),
    **dict.fromkeys(words("isempty empty"), "write not x"),
    **dict.fromkeys(words("json tojson dumps"), "write x | json"),
    **dict.fromkeys(words("sort reverse first last"), "write x | sort, | reverse, | first or | last"),
    "format": "join the parts with ~",
    "tofixed": "write x | round(2)",
}
"""By the name in small letters, without underscores."""

OTHER_FUNCTIONS: Final = {
    **dict.fromkeys(words("len length size count"), _LENGTH),
    **dict.fromkeys(words("str string tostring"), "write x | string"),
    **dict.fromkeys(words("int integer parseint"), "write x | int"),
    **dict.fromkeys(words("float number parsefloat"), "write x | float"),
    **dict.fromkeys(words("sorted"), "write x | sort"),
    **dict.fromkeys(words("reversed"), "write x | reverse"),
    **dict.fromkeys(words("dict"), "write x | items"),
    **dict.fromkeys(words("enumerate"), "write {% for part in x %}, where loop.index counts from 1"),
    **dict.fromkeys(words("contains includes"), _IN),
    **dict.fromkeys(words("tojson json dumps"), "write x | json"),
    **dict.fromkeys(words("fromjson parse loads"), "give the step an 'output', which makes data of its reply"),
    **dict.fromkeys(
        words("not_empty isempty is_empty empty notempty"), "write x alone, or not x: what is empty is false"
    ),
    **dict.fromkeys(words("now date today time datetime"), "there is no clock here: declare an input and give it"),
    **dict.fromkeys(words("env getenv lookup secret secrets"), "values from outside are inputs: write inputs.NAME"),
    **dict.fromkeys(words("always success failure cancelled"), "what a failure means is the step's 'on_error'"),
    **dict.fromkeys(words("print echo"), "write {{ x }}"),
    **dict.fromkeys(words("startswith endswith"), "write x.startswith('…')"),
    **dict.fromkeys(words("read open file include"), "declare an input of 'type: file'"),
    **dict.fromkeys(words("if iif"), "write A if condition else B"),
}
