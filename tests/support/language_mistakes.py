"""Mistakes in lists, conditions, results and tests of a pipeline; rows as in ``pipeline_mistakes``."""

from pipeline_mistakes import EDITOR, HEAD, Mistake, in_step, whole


def at_end(name: str, lines: str, says: str) -> Mistake:
    """Return a mistake in these lines after two steps, ``a`` of text and ``c`` with a score."""
    steps = "steps:\n  a: {agent: editor, prompt: x}\n  c: {agent: critic, prompt: x}\n"
    return whole(name, f"{HEAD}{steps}{lines}\n", says)


def in_test(name: str, case: str, says: str, steps: str = "", inputs: str = "") -> Mistake:
    """Return a mistake in these lines of a test; beside ``a`` and ``c`` there are a loop, a map, a choice and more."""
    body = "\n".join(f"    {line}" for line in case.splitlines())
    head = f"version: 1\nname: demo\ninputs: {{query: {{}}, n: {{type: integer}}{inputs}}}\n"
    return whole(name, f"{head}{OF_TESTS}{steps}result: '{{{{ steps.a }}}}'\ntests:\n  one:\n{body}\n", says)


OF_TESTS = """\
steps:
  a: {agent: editor, approve: true, prompt: x}
  c: {agent: critic, prompt: x}
  r: {repeat: {steps: {d: {agent: editor, prompt: x}}}}
  m: {agent: editor, foreach: [a, b], prompt: x}
  s: {choose: {prompt: x, options: {fact: one, story: two}}}
  q: {ask: Who?, output: {name: string}}
  t: {tool: count_words, with: {text: x}, output: {count: integer}}
  u: {use: answer, with: {query: x}}
  v: {agent: editor, samples: 2, judge: critic, prompt: x}
"""
NEEDY = "version: 1\nname: demo\ninputs: {query: {required: true}}\nsteps: {a: {agent: editor, prompt: x}}\nresult: r\n"


def compared(name: str, condition: str, says: str) -> Mistake:
    """Return a comparison that the bounds of an output or an input decide."""
    inputs = (
        "version: 1\nname: demo\ninputs: {n: {type: integer, minimum: 1, maximum: 5}, t: {type: number, minimum: 2}}\n"
    )
    steps = (
        "steps:\n  c: {agent: critic, prompt: x}\n"
        "  p: {agent: editor, output: {parts: 'list[string](2..4)'}, prompt: x}\n"
        f"  a:\n    agent: editor\n    prompt: x\n    when: {condition}\n"
    )
    return whole(name, f"{inputs}{steps}result: '{{{{ steps.a }}}}'\n", says)


BOUNDS = [
    compared(
        "a score out of ten", "§steps.c.score >= 8", "from 0 to 1, so that this is always false; did you mean 0.8?"
    ),
    compared("a score in percent", "§steps.c.score > 75", "did you mean 0.75?"),
    compared("a score that is always less", "§steps.c.score < 8", "always true; did you mean 0.8?"),
    compared("a score above all", "§steps.c.score > 1", "always false; compare it with a number from 0 to 1"),
    compared("a score below nothing", "§steps.c.score < 0", "always false"),
    compared("a negative score", "§steps.c.score <= -1", "always false"),
    compared("a threshold on the left", "7 <= §steps.c.score", "did you mean 0.7?"),
    compared("an equal score", "§steps.c.score == 10", "always false; did you mean"),
    compared("an unequal score", "§steps.c.score != 10", "always true; did you mean"),
    compared("a chain of comparisons", "0.1 < §steps.c.score < 80", "did you mean 0.8?"),
    compared("a number of an input", "§inputs.n > 5", "'inputs.n' is a number from 1 to 5"),
    compared("a number with one bound", "§inputs.t < 1", "at least 2, so that this is always false"),
    compared("two ranges", "§steps.c.score >= inputs.t", "and 'inputs.t' at least 2, so that this is always false"),
    compared(
        "a list that is never so long",
        "§steps.p.parts | length > 4",
        "'steps.p.parts | length' is a number from 0 to 4",
    ),
    compared("a list of a negative length", "§steps.p.parts|length < 0", "always false"),
    in_step(
        "a score that ends no loop",
        "repeat: {until: §steps.j.score > 9, steps: {j: {agent: critic, prompt: x}}}",
        "did you mean 0.9?",
    ),
    in_step(
        "a condition of a template",
        "agent: editor\nprompt: |\n  One\n  {% if §steps.c.score > 5 %}two{% endif %}",
        "did you mean 0.5?",
        more="  c: {agent: critic, prompt: x}\n",
    ),
]

TOOL = "tool: count_words\nwith: {text: x}\n"

LANGUAGE_MISTAKES = [
    *BOUNDS,
    in_step("a prompt without its braces", "agent: editor\nprompt: §inputs.query", "write '{{ inputs.query }}'"),
    at_end("a result without its braces", "result: §steps.a", "write '{{ steps.a }}'"),
    at_end("a field as the result without its braces", "result: §steps.c.score", "write '{{ steps.c.score }}'"),
    in_step("a question without its braces", "ask: §inputs.query", "write '{{ inputs.query }}'"),
    whole(
        "an agent's prompt in single braces",
        HEAD + "agents: {poet: {prompt: 'On §{inputs.query}'}}\n"
        "steps: {a: {agent: poet, prompt: x}}\nresult: '{{ steps.a }}'\n",
        "no template",
    ),
    in_step("causes of a tool", TOOL + "retry: {attempts: 2, §on: [busy]}", "remove it"),
    in_step("repairs of a tool", TOOL + "retry: {§repairs: 2}", "write 'attempts'"),
    in_step("a mapping to map over", EDITOR + "foreach: §{a: 1}", "must be a list, or an expression that gives one"),
    in_step("a number to map over", EDITOR + "foreach: §3", "must be a list, or an expression that gives one"),
    in_step("an empty list to map over", EDITOR + "foreach: §[]", "always empty"),
    in_step("an empty item", EDITOR + "foreach: [a, §~, b]", "an item of the list is empty"),
    in_step("a reference as an item", EDITOR + "foreach: [§inputs.tags]", "write '{{ inputs.tags }}'"),
    in_step("a reference in an item", EDITOR + "foreach:\n  - {text: §inputs.query}", "write '{{ inputs.query }}'"),
    in_step(
        "a reference as an argument", "tool: count_words\nwith: {text: §inputs.query}", "write '{{ inputs.query }}'"
    ),
    in_step("an unknown input in an item", EDITOR + "foreach: ['{{ §inputs.tagz }}']", "did you mean 'tags'?"),
    in_step("an unknown step in an item", EDITOR + "foreach: [{text: '{{ §steps.x }}'}]", "there is no step 'x'"),
    in_step("an item of itself", EDITOR + "foreach: ['{{ §steps.a }}']", "refers to itself"),
    in_step(
        "a field that no item has",
        "agent: editor\nforeach: [{name: a}, {name: b}]\nprompt: '{{ §item.nam }}'",
        "an item of this list has no 'nam'; did you mean 'name'?",
    ),
    in_step("a field of a text item", "agent: editor\nforeach: [a]\nprompt: '{{ §item.name }}'", "is text and has no"),
    in_step("an item that never is", EDITOR + "foreach: [one, two]\nwhen: §item == 'tow'", "did you mean 'two'?"),
    in_step("a wrong field in a condition", EDITOR + "foreach: [{size: 1}]\nas: box\nwhen: §box.sise > 1", "'size'?"),
    in_step("a condition of no item", EDITOR + "foreach: [{a: 1}]\nwhen: §item.a > 'x'", "cannot be compared"),
    at_end("a list as the result", "result: §[a]", "must be text, or a mapping of name -> value"),
    at_end("a number as the result", "result: §3", "must be text, or a mapping of name -> value"),
    at_end("an empty mapping as the result", "result: §{}", "the result is empty"),
    at_end("an empty value of the result", "result:\n  one: x\n  §two:", "'two' of the result is empty"),
    at_end("an unknown step in a value", "result: {one: '{{ §steps.b }}'}", "there is no step 'b'"),
    at_end("an unknown step deep in a value", "result:\n  one:\n    - two: '{{ §steps.b }}'", "there is no step 'b'"),
    at_end("a wrong field in a value", "result: {one: '{{ §steps.c.scroe }}'}", "did you mean 'score'?"),
    at_end("a value without its braces", "result: {one: §steps.c.score}", "write '{{ steps.c.score }}'"),
    at_end("a broken template in a value", "result: {one: '§{{ steps.c '}", "has no end"),
    at_end(
        "a merged alias", "defaults: &d {max_tokens: 5}\nbudget: {§<<: *d}\nresult: r", "give a whole value an alias"
    ),
    at_end("an alias above its anchor", "concurrency: §*n\nbudget: {calls: &n 4}\nresult: r", "no anchor 'n' above"),
    at_end("an alias of the wrong type", "description: &n text\nconcurrency: §*n\nresult: r", "must be a whole number"),
    at_end(
        "a key of an alias", "defaults: {retry: &r {§attempts: 2}}\nbudget: *r\nresult: r", "unknown key 'attempts'"
    ),
    whole(
        "an agent in two steps of one alias",
        HEAD + "steps:\n  a: &s {agent: §edtor, prompt: x}\n  b: *s\n  c: *s\nresult: '{{ steps.b }}'\n",
        "did you mean 'editor'?",
    ),
    whole(
        "a field in a text of two steps",
        HEAD + "steps:\n  c: {agent: critic, prompt: x}\n  a:\n    agent: editor\n    prompt: &p |\n      Well,\n"
        "      {{ §steps.c.scor }}\n  b: {agent: editor, prompt: *p}\nresult: r\n",
        "did you mean 'score'?",
    ),
    whole(
        "a text that one of its two steps may not have",
        HEAD
        + "steps:\n  a: {agent: editor, prompt: &p '{{ §steps.b }}'}\n  b: {agent: editor, prompt: *p}\nresult: r\n",
        "refers to itself",
    ),
    at_end("a list of tests", "result: r\ntests: §[{name: one}]", "write 'NAME:' in the place of each '- '"),
    at_end("a text as a test", "result: r\ntests: {one: §x}", "must be a mapping"),
    at_end("an empty test", "result: r\ntests: {one: §}", "write its inputs, replies and expect below it"),
    at_end("a name of a test", "result: r\ntests: {§One: {}}", "use small letters"),
    at_end("a test twice", "result: r\ntests:\n  one: {}\n  §one: {}", "the key 'one' stands twice"),
    at_end("another tool's name of tests", "result: r\n§cases: {one: {}}", "write 'tests'"),
    at_end(
        "tests among the steps",
        "  §tests: {one: {expect: {result: x}}}\nresult: '{{ steps.a }}'",
        "begin it in the first column",
    ),
    at_end(
        "text expected of values",
        "result: {one: r}\ntests: {one: {expect: {result: §x}}}",
        "result is a mapping",
    ),
    at_end(
        "an unknown value expected", "result: {one: r}\ntests: {one: {expect: {result: {§onne: x}}}}", "mean 'one'?"
    ),
    in_test("another key of a test", "§mocks: {a: x}", "write 'replies'"),
    in_test("a name in a test", "§name: x", "a test's name is its key under 'tests'"),
    in_test("a text expected", "expect: §x", "write {result: x}, or contains, that or fails"),
    in_test("another key of what is expected", "expect: {§equals: x}", "write 'result'"),
    in_test("nothing expected", "expect: {result: §}", "must be the text, or a mapping"),
    in_test("a truth expected", "expect: {result: §true}", "put it in quotes: 'true'"),
    in_test("a list expected", "expect: {result: §[x]}", "must be the text, or a mapping"),
    in_test("values expected of text", "expect: {result: §{one: x}}", "the pipeline's result is text"),
    in_test("no text in what is expected", "expect: {contains: §[]}", "at least 1 entry"),
    in_test("a mapping in what is expected", "expect: {contains: §{a: x}}", "must be text, or a list of texts"),
    in_test("an error that is no text", "expect: {fails: §false}", "must be words of the error, or true"),
    in_test("a result of a failure", "expect: {fails: true, §result: x}", "is of a run that ends well"),
    in_test("a condition of another language", "expect: {that: run.calls §&& 1}", "write 'and'"),
    in_test("one of two conditions", "expect: {that: [steps.a, §steps.b]}", "there is no step 'b'"),
    in_test("an unknown step in a condition", "expect: {that: §steps.b}", "there is no step 'b'"),
    in_test("an unknown field in a condition", "expect: {that: §steps.c.scor > 1}", "did you mean 'score'?"),
    in_test("an unknown field of the run", "expect: {that: §run.call == 1}", "did you mean 'calls'?"),
    in_test("a condition that compares what cannot be", "expect: {that: §run.calls > 'x'}", "cannot be compared"),
    in_test("a result that has no fields", "expect: {that: §result.score > 1}", "is text and has no"),
    in_test("an unknown input of a test", "inputs: {§qery: x}", "did you mean 'query'?"),
    in_test("a wrong input of a test", "inputs: {n: §many}", "must be a whole number"),
    in_test(
        "a file of a test that is not there", "inputs: {f: §no.txt}", "there is no file", inputs=", f: {type: file}"
    ),
    in_test(
        "a file of a test outside",
        "inputs: {f: §/etc/x}",
        "relative to the pipeline's folder",
        inputs=", f: {type: file}",
    ),
    in_test("a document without text", "inputs: {f: §{name: x}}", "must be a document", inputs=", f: {type: file}"),
    whole("a test without an input", f"{NEEDY}tests: {{§one: {{}}}}\n", "the test 'one' lacks the input 'query'"),
    whole("a wrong name of a needed input", f"{NEEDY}tests: {{one: {{inputs: {{§text: x}}}}}}\n", "mean 'query'?"),
    in_test("a list of replies without steps", "replies: §[x]", "write 'STEP: reply'"),
    in_test("an unknown step replies", "replies: {§ab: x}", "no step 'ab' is there to reply"),
    in_test("an unknown step in a loop replies", "replies: {§r.dd: x}", "did you mean 'r.d'?"),
    in_test("a loop replies", "replies: {§r: x}", "write those of r.d"),
    in_test("a numbered step that is one", "replies: {§'a[0]': x}", "write 'a' for every call"),
    in_test("a number left out", "replies: {§'m[]': x}", "write 'm' for every call, or 'm[1]'"),
    in_test("an empty text in the answer", "expect: {contains: [x, §'']}", "stands in every answer"),
    in_test("half a number", "replies: {§'m[0][1]': x}", "write 'm' for every call, or 'm[1]'"),
    in_test("an empty reply", "replies: {a: §}", "is empty; write what is answered"),
    in_test("a blank reply", "replies: {a: §' '}", "write {fails: output}"),
    in_test("no reply in a list", "replies: {a: §[]}", "write one for each call"),
    in_test("one of several replies", "replies: {a: [x, §true, y]}", "must be text, not true"),
    in_test("a mapping where text is", "replies: {a: §{score: 1}}", "must be text, not a mapping"),
    in_test("text where a mapping is", "replies: {c: §good}", "write {score: …, issues: …}"),
    in_test("a reply that does not fit", "replies: {c: §{score: 2, issues: []}}", "does not have the right shape"),
    in_test("an unknown failure", "replies: {a: {§fails: bussy}}".replace("{§", "§{"), "did you mean 'busy'?"),
    in_test("an unknown label", "replies: {s: §facts}", "did you mean 'fact'?"),
    in_test("an answer that does not fit", "replies: {q: §Ann}", "write {name: …}"),
    in_test("a judge's reply that does not fit", "replies: {v.judge: §{score: 3, issues: []}}", "the right shape"),
    in_test("a tool's reply that does not fit", "replies: {t: §{count: many}}", "does not have the right shape"),
    in_test("a tool that fails without words", "replies: {t: §{fails: 3}}", "{fails: no network}"),
    in_test("a result that a pipeline does not give", "replies: {u: §{a: x}}", "must be text"),
    in_test("an approval by a word", "replies: {a.approve: §yes}", "write true"),
    in_test("an approval that fails", "replies: {a.approve: §{fails: busy}}", "write false"),
    at_end("a place for what is shared", "§x-shared: &s {max_tokens: 5}\ndefaults: *s\nresult: r", "write '&name'"),
]
