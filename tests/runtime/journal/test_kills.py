"""A run that is killed with SIGKILL and resumed: no call that had ended is made again, and none is lost."""

from pathlib import Path

import pytest
from kill_trials import CountingNode, Trials


@pytest.mark.parametrize("journal", ["normal", "full"])
async def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, journal: str):
    async with CountingNode(seconds_per_token=0.03, tokens=12, seconds_per_call=0.06) as node:
        trials = Trials(tmp_path, node, (f"journal={journal}",), grace=1.0)
        await trials.measure()
        assert trials.whole.total() == 16
        for share in (0.3, 0.8):
            found = await trials.trial(share * trials.seconds)
            assert (found.repeated, found.lost, found.same) == (0, 0, True), found
            assert found.recorded
        assert found.finished, "the last kill came when calls had ended"
