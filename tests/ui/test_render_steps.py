"""Every kind of step on the screen, what may happen to it, and a question to a person in the middle of a run."""

import io
import time

import pytest
from render_support import (
    BEGIN,
    COLUMNS,
    ROWS,
    START,
    Terminal,
    everything_begins,
    finished,
    in_pipes,
    on_terminal,
    run_finished,
    started,
)
from rich.console import Console

from synaptic.messages import BackendNotice, BackendProgress, Usage
from synaptic.runtime.events import (
    ApprovalAsked,
    ApprovalGiven,
    BackendReported,
    PromptShortened,
    RunFinished,
    StepRetried,
    TokenDelta,
)
from synaptic.ui.screen.render import Renderer, make_renderer
from synaptic.ui.screen.render_live import LiveStatus
from synaptic.ui.screen.run_view import RunView

EVERYTHING = [
    everything_begins(),
    started("route", "choose", "classifier"),
    finished("route", kind="choose", agent="classifier", output="fact"),
    finished("tell", "skipped", kind="samples", agent=None, started_at=None, ended_at=None, stop_reason="not chosen"),
    started("look_up", "tool", None),
    finished("look_up", kind="tool", agent=None),
    started("reuse", "pipeline", None),
    started("reuse.look", agent="editor"),
    finished("reuse.look", agent="editor", cached=True, attempts=0, usage=Usage()),
    finished("reuse", kind="pipeline", agent=None),
    started("again", "repeat", None, width=2),
    started("again[1]", agent="editor"),
    finished("again[1]", agent="editor"),
]


def test_every_kind_of_step_has_its_line():
    assert in_pipes(EVERYTHING)[1] == [
        "route: started (classifier, ollama/tiny:latest)",
        "route: done, 45 tokens, 2.0 s, chose fact",
        "tell: skipped, not chosen",
        "look_up: started (fetch)",
        "look_up: done, 2.0 s",
        "reuse: started (inner)",
        "reuse.look: started (editor, ollama/tiny:latest)",
        "reuse.look: done, 2.0 s, cached",
        "reuse: done, 2.0 s",
        "again: started (at most 2 rounds, editor)",
        "again[1]: started (editor, ollama/tiny:latest)",
        "again[1]: done, 45 tokens, 2.0 s",
    ]


def test_every_kind_of_step_has_its_row():
    rows = {words[1]: line for line in on_terminal(EVERYTHING).screen() if len(words := line.split()) > 1}

    assert "chose fact" in rows["route"]
    assert rows["tell"].endswith("skipped, not chosen")
    assert "fetch" in rows["look_up"]
    assert "inner" in rows["reuse"]
    assert any("reuse.look" in line and line.endswith("cached") for line in on_terminal(EVERYTHING).screen())
    assert "round 1/2" in rows["again"]


def test_samples_and_their_judges_stand_below_the_step():
    events = [
        everything_begins(),
        started("tell", "samples", "editor", width=3),
        *(started(f"tell[{index}]", agent="editor") for index in range(3)),
        finished("tell[0]", agent="editor"),
        started("tell.judge[0]", agent="judge"),
    ]

    lines = [line.split("  ")[0] for line in on_terminal(events).screen()]

    at = next(index for index, line in enumerate(lines) if " tell 1/3" in line)
    assert [line.split()[-1] for line in lines[at + 1 : at + 5]] == ["tell[0]", "tell[1]", "tell[2]", "tell.judge[0]"]


def test_what_is_inside_an_instance_of_a_map_stands_below_that_instance():
    view = RunView()
    for event in (started("m", "map", None, 2), started("m[1]", "pipeline", None), started("m[1].inner")):
        view.apply(event)

    assert list(view.get("m").children) == ["m[1]"]
    assert list(view.get("m[1]").children) == ["m[1].inner"]


def test_another_model_is_named_when_it_is_asked():
    events = [BEGIN, started("plan"), StepRetried("plan", 1, "llama3.1:70b is not there", 0.0, "llama3")]

    assert in_pipes(events)[1][1:] == ["plan: asking llama3 instead: llama3.1:70b is not there"]
    assert any("asking llama3 instead: llama3.1:70b is" in line for line in on_terminal(events).screen())


def test_a_shortened_prompt_is_said_and_stays_said():
    events = [BEGIN, PromptShortened("plan", "truncate_oldest", 9000, 3500), finished("plan", stop_reason="length")]
    text = "prompt shortened from 9000 to 3500 tokens (truncate_oldest)"

    assert in_pipes(events)[1][0] == f"plan: {text}"
    status = LiveStatus(Console(file=io.StringIO(), width=200), verbose=False)
    for event in events:
        status.view.apply(event)
    assert status.lines(200, START)[0].plain.endswith(f"{text}, cut at its token limit")


def test_a_step_that_waits_for_a_person_says_so():
    asked = [BEGIN, started("plan"), ApprovalAsked("plan", "prompt")]
    given = [*asked, ApprovalGiven("plan", "prompt", "edited")]

    assert in_pipes(given)[1][1:] == ["plan: waits for approval of its prompt", "plan: prompt edited"]
    (row,) = [line for line in on_terminal(asked).screen() if "plan" in line]
    assert row.startswith("? plan")
    assert row.endswith("waits for approval")
    after = "\n".join(on_terminal(given).screen())
    assert "waits" not in after
    (row,) = [line for line in on_terminal([*given, finished("plan")]).screen() if "plan" in line]
    assert row.endswith("prompt edited")


@pytest.mark.parametrize(
    ("decision", "said"),
    [("edited", "answered"), ("accepted", "answered with the default"), ("refused", "not answered")],
)
def test_a_step_that_asks_says_so_and_what_came_of_it(decision: str, said: str):
    asked = [BEGIN, started("plan"), ApprovalAsked("plan", "answer", "Which city?")]
    given = [*asked, ApprovalGiven("plan", "answer", decision)]

    assert in_pipes(given)[1][1:] == ["plan: waits for an answer", f"plan: {said}"]
    (row,) = [line for line in on_terminal(asked).screen() if "plan" in line]
    assert row.endswith("waits for an answer")
    (row,) = [line for line in on_terminal([*given, finished("plan")]).screen() if "plan" in line]
    assert row.endswith(said)


def test_accepting_needs_no_remark():
    events = [BEGIN, started("plan"), ApprovalAsked("plan", "output"), ApprovalGiven("plan", "output", "accepted")]

    (row,) = [line for line in on_terminal([*events, finished("plan")]).screen() if "plan" in line]

    assert row.endswith("2.0 s")


def test_a_run_that_used_up_its_budget_is_summed_up_also_when_quiet():
    cut = finished("plan", "cancelled", attempts=3, usage=Usage(300, 60), stop_reason="budget: tokens")
    end = run_finished("The best so far.", "stopped", steps=[cut], stop_reason="budget: tokens")
    line = (
        "demo: stopped after 3.0 s · the budget of tokens is used up · 3 calls · 90 tokens · 30 tok/s"
        " · tiny:latest on ollama"
    )

    assert in_pipes([BEGIN, end]) == ("The best so far.\n", [line])
    assert in_pipes([BEGIN, end], quiet=True) == ("The best so far.\n", [line])


def test_a_stopped_run_shows_its_answer_where_another_text_was_streamed():
    events = [
        BEGIN,
        TokenDelta("write", "half a"),
        run_finished("An earlier one.", "stopped", stop_reason="budget: calls"),
    ]

    screen = on_terminal(events).screen()

    assert screen.index("half a") < screen.index("An earlier one.")


def test_answers_from_the_cache_are_no_calls():
    steps = [finished("plan", cached=True, usage=Usage()), finished("write")]

    assert "1 call · 1 answer from the cache" in in_pipes([BEGIN, run_finished("x", steps=steps)])[1][-1]


def test_a_retry_of_another_step_does_not_void_the_answer():
    events = [BEGIN, TokenDelta("write", "The "), StepRetried("plan", 2, "busy", 0.0), TokenDelta("write", "answer.")]

    screen = on_terminal([*events, run_finished("The answer.")]).screen()

    assert "The answer." in screen
    assert not any("void" in line for line in screen)


# -- a question to a person in the middle of a run ---------------------------------------------------------------------


def live_renderer() -> tuple[Terminal, Renderer]:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=COLUMNS, height=ROWS, highlight=False)
    return terminal, make_renderer(console=console, out=terminal)


def test_a_paused_renderer_leaves_the_terminal_alone_and_comes_back():
    terminal, renderer = live_renderer()
    for event in (BEGIN, started("plan"), ApprovalAsked("plan", "prompt")):
        renderer.handle(event)

    with renderer.paused():
        before = terminal.getvalue()
        assert [line for line in terminal.screen() if line] == []
        terminal.write("Accept the prompt? yes\n")
        for event in (
            started("research[0]"),
            finished("research[0]"),
            BackendReported(BackendNotice("embedded", "started anew")),
            BackendReported(BackendProgress("embedded", "fetching", 0, 80)),
        ):
            renderer.handle(event)
        time.sleep(0.3)  # longer than a frame
        assert terminal.getvalue() == f"{before}Accept the prompt? yes\n"

    renderer.handle(ApprovalGiven("plan", "prompt", "accepted"))
    renderer.close()
    screen = [line for line in terminal.screen() if line]
    assert screen[:2] == ["Accept the prompt? yes", "embedded: started anew"]
    assert screen[2].split()[1] == "plan"
    assert sum("research[0]" in line for line in screen) == 1


def test_the_cursor_is_visible_while_a_person_is_asked():
    terminal, renderer = live_renderer()
    renderer.handle(BEGIN)

    with renderer.paused():
        data = terminal.getvalue()
        assert data.rindex("\x1b[?25h") > data.rindex("\x1b[?25l")
    renderer.close()


def test_the_answer_waits_for_the_person_and_loses_nothing():
    terminal, renderer = live_renderer()
    for event in (BEGIN, TokenDelta("write", "One ")):
        renderer.handle(event)

    with renderer.paused():
        asked_at = len(terminal.getvalue())
        renderer.handle(TokenDelta("write", "two "))
        renderer.handle(finished("research[0]"))
        with renderer.paused():
            renderer.handle(TokenDelta("write", "three."))
        assert len(terminal.getvalue()) == asked_at
    renderer.handle(run_finished("One two three."))
    renderer.close()

    lines = [line for line in terminal.screen() if line]
    assert "".join(lines[lines.index("One") :][:2]) == "Onetwo three."
    assert lines.index("two three.") < next(index for index, line in enumerate(lines) if line.startswith("research[0]"))


def test_an_answer_that_is_restarted_during_a_question_is_shown_once():
    terminal, renderer = live_renderer()
    renderer.handle(BEGIN)
    with renderer.paused():
        for event in (TokenDelta("write", "old"), StepRetried("write", 2, "cut", 0.0), TokenDelta("write", "new")):
            renderer.handle(event)
    renderer.handle(run_finished("new"))
    renderer.close()

    assert "old" not in terminal.getvalue()
    assert "new" in terminal.screen()


def test_a_run_that_ends_during_a_question_is_shown_all_the_same():
    terminal, renderer = live_renderer()
    renderer.handle(BEGIN)
    with renderer.paused():
        renderer.handle(TokenDelta("write", "The answer."))
        renderer.handle(run_finished("The answer."))
    renderer.close()

    assert terminal.screen().count("The answer.") == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_wait_for_the_person_too(quiet):
    err = io.StringIO()
    renderer = make_renderer(console=Console(file=err, width=200, highlight=False), out=io.StringIO(), quiet=quiet)
    with renderer.paused():
        for event in (BEGIN, started("plan"), run_finished(status="cancelled")):
            renderer.handle(event)
            if not isinstance(event, RunFinished):
                assert err.getvalue() == ""
    renderer.close()

    assert err.getvalue().splitlines()[-1].startswith("interrupted after 3.0 s")
