"""Mistakes in lists, conditions, results and tests of a pipeline; rows as in ``pipeline_mistakes``."""

from pipeline_mistakes import EDITOR, HEAD, Mistake, in_step, whole


def at_end(name: str, lines: str, says: str) -> Mistake:
    """Return a mistake in these lines after two steps, ``a`` of text and ``c`` with a score."""
    steps = "steps:\n  a: {agent: editor, prompt: x}\n  c: {agent: critic, prompt: x}\n"
    return whole(name, f"{HEAD}{steps}{lines}\n", says)


TOOL = "tool: count_words\nwith: {text: x}\n"

LANGUAGE_MISTAKES = [
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
    at_end("a place for what is shared", "§x-shared: &s {max_tokens: 5}\ndefaults: *s\nresult: r", "write '&name'"),
]
