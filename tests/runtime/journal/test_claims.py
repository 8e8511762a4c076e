"""Several processes that go on with one run: one of them gets it."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from run_support import SETTINGS, Run

from synaptic import paths
from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import PipelineError, RunOwned
from synaptic.runtime.journal import Journal, Owner
from synaptic.runtime.journal.row_seal import seal_run
from synaptic.runtime.session import Session

DRIVER = Path(__file__).parents[2] / "support" / "resume_driver.py"
ROUNDS = 25
ONE = "  end: {agent: editor, prompt: '{{ inputs.query }}'}"


def dead_run() -> str:
    """Record a run whose process was killed before its only call; return its id."""
    result = asyncio.run(Run(ONE)())
    leave(result.run_id)
    return result.run_id


def leave(run_id: str, status: str = "running", owner: Owner | None = None) -> None:
    dead = (owner or replace(Owner.this(), mark="another process of this number")).written()
    with sqlite3.connect(paths.journal_file()) as connection:
        update = "UPDATE runs SET status = ?, owner = ?, ended = NULL WHERE id = ? RETURNING n"
        (number,) = connection.execute(update, (status, dead, run_id)).fetchone()
        seal_run(connection, number)
        connection.execute("DELETE FROM events WHERE run = ? AND kind IN ('StepFinished', 'RunFinished')", (number,))
    connection.close()


@pytest.mark.timeout(120)
def test_of_two_processes_that_resume_one_run_one_gets_it():
    with ExitStack() as ends:
        both = [
            ends.enter_context(
                subprocess.Popen([sys.executable, DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        for each in both:
            assert each.stdout.readline() == "ready\n"
        winners = set()
        for _ in range(ROUNDS):
            run_id = dead_run()
            for each in both:
                each.stdin.write(f"{run_id}\n")
                each.stdin.flush()
            said = sorted((each.stdout.readline().split(" ", 1) for each in both), key=lambda words: words[1])
            (winner, got), (_, told) = said
            assert got == "got 1\n", said
            assert told == f"told the run {run_id} is at work in process {winner} 0\n", said
            winners.add(winner)
            with Journal() as journal:
                assert journal.run(run_id).status == "succeeded"
                assert str(journal.run(run_id).owner.pid) == winner
        assert winners <= {str(each.pid) for each in both}


@pytest.mark.parametrize("status", ["running", "waiting", "failed"])
def test_a_run_that_could_not_be_begun_is_as_it_was(status: str, tmp_path: Path):
    run_id = dead_run()
    leave(run_id, status)
    with Journal() as journal:
        before = journal.run(run_id)
    (tmp_path / "wrong.yaml").write_text("version: 1")

    async def resume() -> None:
        async with Session(SETTINGS) as session:
            await session.resume(run_id, pipeline=tmp_path / "wrong.yaml")

    with pytest.raises(PipelineError):
        asyncio.run(resume())
    with Journal() as journal:
        assert journal.run(run_id) == before


def test_a_machine_is_known_whatever_it_is_called_by_now():
    here = Owner.this()
    renamed = replace(here, machine="elsewhere")
    assert Owner.read(renamed.written()) == renamed
    assert (renamed.alive, renamed.is_this) == (True, False)
    assert replace(renamed, mark="another process of this number").alive is False
    assert replace(renamed, numbers="another container").alive is None
    assert replace(renamed, numbers="").alive is None  # as it was written before
    assert replace(here, numbers="").alive is True


def test_a_run_of_a_machine_that_is_gone_says_how_to_go_on():
    run_id = dead_run()
    leave(run_id, owner=replace(Owner.this(), machine="gone", numbers=""))
    with Journal() as journal, pytest.raises(RunOwned, match="on gone") as refused:
        journal.claim(run_id)
    assert refused.value.hint == (
        f"if gone has ended without it: a run that begins with all that this one has done: synaptic runs rerun {run_id}"
    )


def test_a_claim_is_seen_by_others_at_once():
    run_id = dead_run()
    ask = f"from synaptic.runtime.journal import Journal; Journal().claim({run_id!r})"
    with Journal() as journal:
        was = journal.claim(run_id)
        assert was.status == "interrupted"
        refused = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
        assert f"at work in process {Owner.this().pid}" in refused.stderr
        assert RunOwned.__name__ in refused.stderr
        journal.give_back(was)
        subprocess.run([sys.executable, "-c", ask], check=True)


def test_of_two_sessions_of_one_process_one_gets_it():
    run_id = dead_run()

    async def resume(backend: ScriptedBackend) -> str:
        async with Session(SETTINGS, backend=backend) as session:
            return (await session.resume(run_id)).status

    async def both() -> list[object]:
        backends = [ScriptedBackend(first_token_delay=0.2) for _ in range(2)]
        said = await asyncio.gather(*map(resume, backends), return_exceptions=True)
        assert sum(len(backend.requests) for backend in backends) == 1
        return said

    said = sorted(asyncio.run(both()), key=str)
    assert said[0] == "succeeded" or said[1] == "succeeded"
    (refused,) = [each for each in said if isinstance(each, RunOwned)]
    assert refused.message == f"the run {run_id} is at work in this very process"
    with Journal() as journal:
        assert journal.run(run_id).status == "succeeded"
