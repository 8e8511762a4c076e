"""Pipelines that may run and are probably not meant, one a row, as in ``pipeline_mistakes``: each is one warning.

And pipelines of which nothing is said, because they may be meant.
"""

from pipeline_mistakes import Mistake, whole


def doubtful(name: str, steps: str, says: str, *, result: str = "'{{ steps.a }}'", inputs: str = "") -> Mistake:
    """Return a pipeline with the input ``query``, these further ``inputs`` and these steps."""
    lines = "\n".join(f"  {line}" if line else "" for line in steps.splitlines())
    head = f"version: 1\nname: demo\ninputs: {{query: {{}}{inputs}}}\n"
    return whole(name, f"{head}steps:\n{lines}\nresult: {result}\n", says)


OPEN = "a: {agent: editor, prompt: '{{ inputs.query }}'"
ASK = OPEN + "}\n"
JUDGED = "c: {agent: critic, prompt: '{{ inputs.query }}'}\n"


def prompt(name: str, text: str, says: str, *, more: str = "", inputs: str = "") -> Mistake:
    """Return a pipeline whose step ``a`` has this prompt."""
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    return doubtful(name, f"a:\n  agent: editor\n  prompt: |\n{lines}\n{more}", says, inputs=inputs)


SINGLE = "did you mean {{ inputs.query }}?"

LOOK_ALIKES = [
    prompt("an input in single braces", "About §{inputs.query}.", SINGLE),
    prompt("an input in single braces with blanks", "About §{ inputs.query }.", SINGLE),
    prompt("an input that is read elsewhere, too", "About {{ inputs.query }}, §{inputs.query}.", SINGLE),
    prompt("one brace before it, two behind", "About §{ inputs.query }}.", SINGLE),
    prompt("a value of a shell", "About §${inputs.query}.", SINGLE),
    prompt("a value of Ruby", "About §#{inputs.query}.", SINGLE),
    prompt("a name in single braces", "About §{query}.", SINGLE),
    prompt("a name of a shell", "About §$query.", SINGLE),
    prompt("a name in braces of a shell", "About §${query}.", SINGLE),
    prompt("a name in angle brackets", "About §<query>.", SINGLE),
    prompt("a name in square brackets", "About §[query].", SINGLE),
    prompt("a name in percent signs", "About §%query%.", SINGLE),
    prompt("a name as in printf", "About §%(query)s.", SINGLE),
    prompt("a reference without braces", "About §inputs.query, in short.", SINGLE),
    prompt(
        "the part of a file", "{{ inputs.query }}: §{doc.text}", "{{ inputs.doc.text }}?", inputs=", doc: {type: file}"
    ),
    prompt("a field in single braces", "Mind: §{steps.c.issues}", "{{ steps.c.issues }}?", more=JUDGED),
    prompt("a step in single braces", "Mind: §{c.issues}", "did you mean {{ steps.c.issues }}?", more=JUDGED),
    prompt("a field without braces", "Mind §steps.c.issues!", "did you mean {{ steps.c.issues }}?", more=JUDGED),
    doubtful("a result in single braces", ASK, "did you mean {{ steps.a }}?", result="'So: §{steps.a}'"),
    doubtful("a name in the result", ASK, "did you mean {{ steps.a }}?", result="'So: §{a}'"),
    doubtful("a value of a result", ASK, "did you mean {{ steps.a }}?", result="{one: 'So: §{steps.a}'}"),
    doubtful("an input of a used pipeline", "a: {use: answer, with: {query: 'On §{inputs.query}'}}", SINGLE),
    doubtful(
        "a question in single braces",
        "q: {ask: 'Which §{inputs.query}?'}\na: {agent: editor, prompt: '{{ steps.q }}'}",
        SINGLE,
    ),
    doubtful(
        "an item in single braces",
        "p: {agent: planner, prompt: '{{ inputs.query }}'}\n"
        "a: {agent: editor, foreach: steps.p.questions, as: question, prompt: 'Answer §{question}'}",
        "did you mean {{ question }}?",
    ),
    doubtful(
        "the output of the round before in single braces",
        "r: {repeat: {steps: {a: {agent: editor, prompt: '{{ inputs.query }} §{previous.a}'}}}}",
        "did you mean {{ previous.a }}?",
        result="'{{ steps.r.a }}'",
    ),
]

UNREAD = [
    doubtful("an unread input", ASK, "the input 'tone' is read nowhere", inputs=", §tone: {}"),
    doubtful("an unread list", ASK, "write {{ inputs.tags }} where", inputs=", §tags: {type: list}"),
    doubtful("an unread step", f"{ASK}§b: {{agent: editor, prompt: '{{{{ inputs.query }}}}'}}", "output of 'b'"),
    doubtful(
        "an unread end of a chain", f"{ASK}§b: {{agent: editor, prompt: '{{{{ steps.a }}}}'}}", "write {{ steps.b }}"
    ),
    doubtful("an unread answer of a person", f"{ASK}§q: {{ask: 'Which one?'}}", "output of 'q'"),
    doubtful("an unread choice", f"{ASK}§q: {{choose: {{prompt: x, options: {{y: Yes., n: No.}}}}}}", "output of 'q'"),
    doubtful("an unread pipeline", f"{ASK}§u: {{use: answer, with: {{query: x}}}}", "output of 'u'"),
    doubtful(
        "an unread loop", f"{ASK}§r: {{repeat: {{steps: {{d: {{agent: editor, prompt: x}}}}}}}}", "output of 'r' is"
    ),
    doubtful(
        "an unread step of a loop",
        "r:\n  repeat:\n    steps:\n      a: {agent: editor, prompt: '{{ inputs.query }}'}\n"
        "      §c: {agent: critic, prompt: '{{ steps.a }}'}",
        "write {{ steps.r.c }} where",
        result="'{{ steps.r.a }}'",
    ),
    doubtful(
        "a step of a loop of which only the rounds are read",
        "r:\n  repeat:\n    steps:\n      §a: {agent: editor, prompt: '{{ inputs.query }}'}",
        "write {{ steps.r.a }} where",
        result="'{{ steps.r.rounds }}'",
    ),
]

ALWAYS_TRUE = [
    doubtful("a score that is at least nothing", f"{JUDGED}{OPEN}, when: §steps.c.score >= 0}}", "always true"),
    doubtful("a score that is at most all", f"{JUDGED}{OPEN}, when: 1 >= §steps.c.score}}", "always true"),
]

DOUBTFUL = [*LOOK_ALIKES, *UNREAD, *ALWAYS_TRUE]


def fine(name: str, steps: str, *, result: str = "'{{ steps.a }}'", inputs: str = "") -> Mistake:
    """Return a pipeline of which nothing is said."""
    return doubtful(name, steps, "", result=result, inputs=inputs)


FINE = [
    fine("data in braces", "a: {agent: editor, prompt: '{{ inputs.query }} as {\"name\": 1} or {name} or <b>x</b>'}"),
    fine(
        "the name of an input that is read", "a: {agent: editor, prompt: 'Use {query} and $query: {{ inputs.query }}'}"
    ),
    fine(
        "braces that are shown", "a: {agent: editor, prompt: '{{ inputs.query }}{% raw %}{inputs.query}{% endraw %}'}"
    ),
    fine("braces in a comment", "a: {agent: editor, prompt: '{{ inputs.query }}{# {inputs.query} #}'}"),
    fine("braces inside a hole", "a: {agent: editor, prompt: \"{{ inputs.query or '{inputs.query}' }}\"}"),
    fine("a tool that does something", f"{ASK}t: {{tool: count_words, with: {{text: x}}}}"),
    fine("a tool in a loop", f"{ASK}r: {{repeat: {{steps: {{t: {{tool: count_words, with: {{text: x}}}}}}}}}}"),
    fine("what a person sees", f"{ASK}b: {{agent: editor, approve: output, prompt: x}}"),
    fine("a step that is waited for", f"b: {{agent: editor, prompt: x}}\n{OPEN}, needs: [b]}}"),
    fine("a fallback", f"b: {{agent: editor, prompt: x}}\n{OPEN}, on_error: {{use: b}}}}"),
    fine("a choice that opens steps", f"{ASK}r: {{choose: {{prompt: x, options: {{y: {{steps: [a]}}, n: No.}}}}}}"),
    fine(
        "a loop that is read as a whole",
        "r: {repeat: {steps: {a: {agent: editor, prompt: '{{ inputs.query }}'}, b: {agent: editor, prompt: x}}}}",
        result="'{{ steps.r }}'",
    ),
    fine(
        "a round that is read as a whole",
        "r: {repeat: {steps: {a: {agent: editor, prompt: '{{ inputs.query }}{{ previous }}'}, c: {agent: critic, "
        "prompt: x}}}}",
        result="'{{ steps.r.a }}'",
    ),
    fine(
        "a score that ends a loop",
        "r: {repeat: {until: steps.c.score > 0.9, steps: {a: {agent: editor, prompt: '{{ inputs.query }}'}, "
        "c: {agent: critic, prompt: '{{ steps.a }}'}}}}",
        result="'{{ steps.r.a }}'",
    ),
    fine("all inputs", "a: {agent: editor, prompt: '{{ inputs }}'}", inputs=", tone: {}"),
    fine("an input that decides", f"{OPEN}, when: inputs.tone}}", inputs=", tone: {}"),
    fine("an exact threshold", f"{JUDGED}{OPEN}, when: steps.c.score >= 1 or steps.c.score <= 0}}"),
]
