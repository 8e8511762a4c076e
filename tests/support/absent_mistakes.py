"""Uses of what may have been skipped, and of what is nothing in the first round, one a row as in ``pipeline_mistakes``.

And pipelines that ask first, or in which it is always there: of these nothing is said.
"""

from pipeline_mistakes import Mistake, whole

INPUTS = "{query: {default: x}, n: {type: integer, default: 2}, tags: {type: list, default: [a]}}"
HEAD = f"version: 1\nname: demo\ninputs: {INPUTS}\n"
STEPS = {
    "when": "  c: {agent: critic, prompt: x}\n  b: {agent: critic, when: steps.c.score < 0.5, prompt: x}\n",
    "skip": "  b: {agent: critic, on_error: skip, prompt: x}\n",
    "choose": "  r: {choose: {prompt: x, options: {one: {steps: [b]}, two: T., three: T.}}}\n"
    "  b: {agent: critic, prompt: x}\n",
    "pair": "  r: {choose: {prompt: x, options: {one: {steps: [b, d]}, two: {steps: [e]}}}}\n"
    "  b: {agent: critic, prompt: x}\n  d: {agent: critic, prompt: x}\n  e: {agent: critic, prompt: x}\n",
    "race": "  b: {agent: critic, prompt: x}\n  d: {agent: critic, prompt: y}\n",
    "loop": "  r: {repeat: {steps: {b: {agent: critic, on_error: skip, prompt: x}, d: {agent: editor, prompt: x}}}}\n",
}


def using(name: str, how: str, step: str, says: str = "", *, result: str = "{{ steps.a }}") -> Mistake:
    """Return a pipeline in which ``b`` may be absent, with these lines of the step ``a``."""
    body = "".join(f"    {line}\n" for line in step.splitlines())
    return whole(name, f'{HEAD}steps:\n{STEPS[how]}  a:\n{body}result: "{result}"\n', says)


def looping(name: str, loop: str, says: str = "") -> Mistake:
    """Return a loop with these lines."""
    body = "".join(f"      {line}\n" for line in loop.splitlines())
    return whole(name, f"{HEAD}steps:\n  a:\n    repeat:\n{body}result: '{{{{ steps.a }}}}'\n", says)


EDIT = "agent: editor\nprompt: x\n"
ASK_FIRST = (
    "'steps.b' may have been skipped, and nothing is there to compare or calculate with then; write steps.b and …"
)
JUDGED = "steps:\n  d: {agent: editor, prompt: x}\n  c: {agent: critic, prompt: x}\n"

ABSENT = [
    using("a sum of a list", "skip", EDIT, "steps.b and …", result="{{ [§steps.b.score, 1] | sum }}"),
    using("a number in a format", "skip", EDIT, "steps.b and …", result="{{ '%d' | format(§steps.b.score) }}"),
    using(
        "a value of a mapping", "skip", "agent: editor\nforeach: ['{{ §steps.b.score + 1 }}']\nprompt: x", "steps.b and"
    ),
    using("a condition on a step with a condition", "when", EDIT + "when: §steps.b.score > 0.5", ASK_FIRST),
    using("a condition on a step that may fail", "skip", EDIT + "when: §steps.b.score > 0.5", ASK_FIRST),
    using("a condition on an option", "choose", EDIT + "when: §steps.b.score > 0.5", ASK_FIRST),
    using("a comparison the other way round", "skip", EDIT + "when: 0.5 < §steps.b.score", ASK_FIRST),
    using("a comparison with what is there", "skip", EDIT + "when: inputs.n > §steps.b.score", ASK_FIRST),
    using(
        "'is defined', which is no question here",
        "skip",
        EDIT + "when: steps.b is defined and §steps.b.score > 0.5",
        ASK_FIRST,
    ),
    using("asked after it is used", "skip", EDIT + "when: §steps.b.score > 0.5 and steps.b", ASK_FIRST),
    using("asked with 'or'", "skip", EDIT + "when: steps.b or §steps.b.score > 0.5", ASK_FIRST),
    using("the wrong one is asked", "pair", EDIT + "when: steps.e and §steps.b.score > 0.5", ASK_FIRST),
    using("the wrong option is asked", "pair", EDIT + "when: steps.r == 'two' and §steps.b.score > 0.5", ASK_FIRST),
    using(
        "a sum in a prompt",
        "skip",
        "agent: editor\nprompt: '{{ §steps.b.score + 1 }}'",
        "or steps.b.score | default(0)",
    ),
    using("a rounded score", "skip", "agent: editor\nprompt: '{{ §steps.b.score | round(1) }}'", ASK_FIRST),
    using("a score with a sign", "skip", "agent: editor\nprompt: '{{ -§steps.b.score }}'", ASK_FIRST),
    using(
        "a score in a branch",
        "when",
        "agent: editor\nprompt: |\n  Say\n  {% if inputs.n %}{{ §steps.b.score * 100 }}{% endif %}",
        ASK_FIRST,
    ),
    using(
        "an if on a score",
        "skip",
        "agent: editor\nprompt: '{% if §steps.b.score > 1 / 2 %}good{% endif %}'",
        ASK_FIRST,
    ),
    using(
        "the other branch",
        "skip",
        "agent: editor\nprompt: '{% if steps.b %}x{% else %}{{ §steps.b.score * 9 }}{% endif %}'",
        ASK_FIRST,
    ),
    using(
        "a name for it",
        "skip",
        "agent: editor\nprompt: '{% set s = §steps.b.score %}{{ s + 1 }}'",
        "write steps.b and",
    ),
    using("a slice as long as it", "skip", "agent: editor\nprompt: '{{ inputs.tags[:§steps.b.score] }}'", ASK_FIRST),
    using("a range of it", "skip", "agent: editor\nprompt: '{{ range(§steps.b.score) }}'", ASK_FIRST),
    using("a result that is calculated", "skip", EDIT, ASK_FIRST, result="{{ §steps.b.score * 100 }} %"),
    using("a list that is calculated", "skip", EDIT + "foreach: inputs.tags[§steps.b.score + 1:]", ASK_FIRST),
    using(
        "a bound of rounds",
        "skip",
        "repeat: {max: §steps.b.score, steps: {x: {agent: editor, prompt: x}}}",
        ASK_FIRST,
    ),
    using(
        "inside a loop",
        "skip",
        "repeat: {steps: {x: {agent: editor, prompt: '{{ §steps.b.score + 1 }}'}}}",
        ASK_FIRST,
    ),
    using(
        "the end of a loop",
        "skip",
        "repeat: {until: §steps.b.score > 0.5, steps: {x: {agent: editor, prompt: x}}}",
        ASK_FIRST,
    ),
    using(
        "a step of a loop, from outside",
        "loop",
        EDIT + "when: §steps.r.b.score > 0.5",
        "'steps.r.b' may have been skipped",
    ),
    using(
        "a race's other one",
        "race",
        "agent: editor\njoin: first\nprompt: '{{ §steps.b.score + steps.d.score }}'",
        ASK_FIRST,
    ),
    using(
        "a race that asks of one only",
        "race",
        "agent: editor\njoin: any\nprompt: '{{ steps.b.score if steps.b else 0 }}{{ §steps.d.score + 1 }}'",
        "write steps.d and",
    ),
    using(
        "a required input of a pipeline",
        "skip",
        "use: answer\nwith: {query: '{{ §steps.b.issues | first }}'}",
        "'answer' needs 'query'; give the step 'when: steps.b'",
    ),
    using(
        "a number of a tool",
        "skip",
        "tool: count_words\nwith: {text: x, limit: '{{ §steps.b.score }}'}",
        "'count_words' needs 'limit'",
    ),
    whole(
        "the result of a pipeline that may be absent",
        f"{HEAD}steps:\n  u: {{use: part.yaml}}\n  a: {{agent: editor, when: §steps.u.score > 0.5, prompt: x}}\n"
        "result: '{{ steps.a }}'\n",
        "'steps.u' may have been skipped",
        {"part.yaml": f"{HEAD}steps:\n{STEPS['skip']}result: '{{{{ steps.b }}}}'\n"},
    ),
    whole(
        "a value of the result of a pipeline that may be absent",
        f"{HEAD}steps:\n  u: {{use: part.yaml}}\n  a: {{agent: editor, when: §steps.u.mark > 0.5, prompt: x}}\n"
        "result: '{{ steps.a }}'\n",
        "'steps.u.mark' may have been skipped",
        {"part.yaml": f"{HEAD}steps:\n{STEPS['skip']}result: {{mark: '{{{{ steps.b.score }}}}', one: 1}}\n"},
    ),
    looping(
        "the round before in a prompt",
        "steps:\n  d: {agent: editor, prompt: '{{ §previous.c.score + 1 }}'}\n  c: {agent: critic, prompt: x}",
        "'previous' is nothing in the first round",
    ),
    looping(
        "the round before in a condition",
        "steps:\n  d: {agent: editor, when: §previous.c.score < 0.5, prompt: x}\n  c: {agent: critic, prompt: x}",
        "write previous and …",
    ),
    looping(
        "the round before at the end of a loop",
        f"until: steps.c.score > §previous.c.score\n{JUDGED}",
        "write previous and …",
    ),
    looping(
        "the round before in a score",
        f"score: steps.c.score - §previous.c.score\n{JUDGED}",
        "write previous and …",
    ),
    looping(
        "a step of the round that may be absent",
        "until: §steps.c.score > 0.5\nsteps:\n  c: {agent: critic, on_error: skip, prompt: x}",
        "write steps.c and …",
    ),
    looping(
        "a step of the round before that may be absent",
        "steps:\n  d: {agent: editor, prompt: '{% if previous %}{{ §previous.c.score + 1 }}{% endif %}'}"
        "\n  c: {agent: critic, on_error: skip, prompt: x}",
        "'previous.c' may have been skipped",
    ),
    whole(
        "its own round before",
        f"{HEAD}steps:\n  a:\n    agent: critic\n    prompt: x\n"
        "    repeat: {self: true, until: steps.a.score <= §previous.score}\nresult: '{{ steps.a }}'\n",
        "'previous' is nothing in the first round",
    ),
]

BOTH = (
    "  r: {choose: {prompt: x, options: {one: {steps: [b]}, two: {steps: [d]}}}}\n"
    "  b: {agent: critic, prompt: x}\n  d: {agent: critic, prompt: x}\n"
)
DEEP = "  b: {agent: critic, when: inputs.n, prompt: x}\n"

ASKED = [
    whole(
        "one of two options is there",
        f"{HEAD}steps:\n{BOTH}result: '{{{{ steps.b.score * 9 if steps.b else steps.d.score * 9 }}}}'\n",
        "",
    ),
    whole(
        "one of two options by its label",
        f"{HEAD}steps:\n{BOTH}"
        "result: \"{% if steps.r == 'one' %}{{ steps.b.score * 9 }}{% else %}{{ steps.d.score * 9 }}{% endif %}\"\n",
        "",
    ),
    whole(
        "the condition in other words",
        f"{HEAD}steps:\n{DEEP}result: '{{% if inputs.n == true %}}{{{{ steps.b.score * 9 }}}}{{% endif %}}'\n",
        "",
    ),
    whole(
        "beside a step that is always there",
        f"{HEAD}steps:\n{DEEP}  c: {{agent: critic, prompt: x}}\n"
        "result: '{{ steps.c.score * 9 if steps.c else steps.b.score * 9 }}'\n",
        "",
    ),
    whole(
        "a value of a result in whose place there is another",
        f"{HEAD}steps:\n  u: {{use: part.yaml}}\n  a: {{agent: editor, when: steps.u.mark > 0.5, prompt: x}}\n"
        "result: '{{ steps.a }}'\n",
        "",
        {"part.yaml": f"{HEAD}steps:\n{STEPS['skip']}result: {{mark: '{{{{ steps.b.score or 0 }}}}'}}\n"},
    ),
    using("it is asked first", "when", EDIT + "when: steps.b and steps.b.score > 0.5"),
    using("its field is asked first", "skip", EDIT + "when: steps.b.score and steps.b.score > 0.5"),
    using("'is not skipped' is asked", "skip", EDIT + "when: steps.b is not skipped and steps.b.score > 0.5"),
    using("'is not none' is asked", "skip", EDIT + "when: steps.b is not none and steps.b.score > 0.5"),
    using("a value in its place", "skip", EDIT + "when: steps.b.score | default(0) > 0.5"),
    using("a value behind 'or'", "skip", EDIT + "when: (steps.b.score or 0) > 0.5"),
    using("a condition with 'if'", "skip", "agent: editor\nprompt: '{{ steps.b.score * 100 if steps.b else 0 }}'"),
    using(
        "a branch that asks",
        "skip",
        "agent: editor\nprompt: '{% if steps.b %}{{ steps.b.score * 100 }}{% endif %}'",
    ),
    using(
        "an else that asks",
        "skip",
        "agent: editor\nprompt: '{% if not steps.b %}{% else %}{{ steps.b.score + 1 }}{% endif %}'",
    ),
    using("a comparison for equality", "skip", EDIT + "when: steps.b.score == 1"),
    using("its text", "skip", "agent: editor\nprompt: '{{ steps.b.score ~ steps.b.issues | join }}'"),
    using("its length", "skip", EDIT + "when: steps.b.issues | length > 2"),
    using("its items", "skip", "agent: editor\nprompt: '{% for i in steps.b.issues %}{{ i }}{% endfor %}'"),
    using("a map over its items", "skip", EDIT + "foreach: steps.b.issues"),
    using("the step's own condition asks", "skip", "agent: editor\nwhen: steps.b\nprompt: '{{ steps.b.score + 1 }}'"),
    using("the same condition", "when", "agent: editor\nwhen: steps.c.score < 0.5\nprompt: '{{ steps.b.score + 1 }}'"),
    using(
        "the same condition and more",
        "when",
        "agent: editor\nwhen: steps.c.score < 0.5 and inputs.n > 1\nprompt: '{{ steps.b.score + 1 }}'",
    ),
    using(
        "the opposite condition in a branch",
        "when",
        "agent: editor\nprompt: '{% if steps.c.score >= 0.5 %}x{% else %}{{ steps.b.score + 1 }}{% endif %}'",
    ),
    using("the same option", "pair", EDIT, result="{% if steps.d %}{{ steps.b.score + 1 }}{% endif %}"),
    using(
        "the chosen option is asked",
        "choose",
        "agent: editor\nprompt: \"{% if steps.r == 'one' %}{{ steps.b.score + 1 }}{% endif %}\"",
    ),
    using(
        "another option is excluded",
        "choose",
        EDIT + "when: steps.r not in ['two', 'three'] and steps.b.score > 0.5",
    ),
    using(
        "the winner of a race",
        "race",
        "agent: editor\njoin: first\nprompt: '{{ steps.b.score * 9 if steps.b else steps.d.score * 9 }}'",
    ),
    using("a race that is waited for", "race", "agent: editor\njoin: any\nprompt: '{{ steps.b }}{{ steps.d.score }}'"),
    using(
        "a step that runs only after it",
        "skip",
        "agent: critic\nwhen: steps.b\nprompt: x",
        result="{% if steps.a %}{{ steps.b.score + steps.a.score }}{% endif %}",
    ),
    using(
        "an optional input of a pipeline",
        "skip",
        "use: debate\nwith: {query: x, first: '{{ steps.b.issues | first }}'}",
    ),
    using("text around it", "skip", "use: answer\nwith: {query: 'So {{ steps.b }}'}"),
    using("a text in its place", "skip", "use: answer\nwith: {query: \"{{ steps.b or 'x' }}\"}"),
    using(
        "a step that fails as a whole",
        "skip",
        "agent: critic\nforeach: inputs.tags\non_error: skip\nprompt: x",
        result="{{ steps.a | length + 1 }}",
    ),
    using(
        "a condition on the item",
        "skip",
        "agent: critic\nforeach: inputs.tags\nwhen: item != 'x'\nprompt: x",
        result="{{ steps.a | length + 1 }}",
    ),
    looping("the round before is asked for", f"until: previous and steps.c.score <= previous.c.score\n{JUDGED}"),
    looping("a score of the round itself", f"until: steps.c.score > 0.9\nscore: steps.c.score\n{JUDGED}"),
    looping(
        "a round before with a value in its place",
        f"until: steps.c.score <= previous.c.score | default(0)\n{JUDGED}",
    ),
    looping(
        "a score that may be absent",
        "score: steps.c.score\nsteps:\n  c: {agent: critic, on_error: skip, prompt: x}",
    ),
]
