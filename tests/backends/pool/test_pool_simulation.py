"""The simulation of the pool, small: no cap is exceeded, every call is served once, and nobody starves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "pool_simulation.py"


@pytest.fixture(scope="module")
def document():
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr  # it fails by itself if a call is lost, or served twice
    return json.loads(done.stdout)


def test_no_node_ever_has_more_calls_than_it_may(document):
    assert document["large"]["most_calls_over_cap"] == 0


def test_overload_is_worked_off_and_nobody_starves(document):
    large = document["large"]
    series = large["series"]
    assert max(one["waiting"] for one in series) > 20, "there was an overload"
    assert series[-1]["waiting"] < max(one["waiting"] for one in series) / 3
    longest = {kind: quantiles["p100"] for kind, quantiles in large["wait_seconds"].items()}
    assert longest["interactive"] < longest["run"] < longest["batch"] < large["virtual_seconds"] / 2


def test_users_and_models_are_served_alike(document):
    assert document["large"]["jain_users"] > 0.95
    assert document["large"]["jain_models"] > 0.95


def test_late_binding_comes_close_to_the_bound(document):
    found = document["makespan"]
    assert found["ours"]["mean"] >= 0.95
    for policy in ("least connections", "round robin"):
        assert found[policy]["mean"] < found["ours"]["worst"]


def test_schedulers_do_not_run_to_one_node_and_less_so_where_they_know_of_each_other(document):
    for machines in ("speeds 1 to 8", "all alike"):
        found = document["herd"][machines]
        response = {policy: figures["response_seconds"]["mean"] for policy, figures in found.items()}
        assert sorted(response, key=response.get)[:2] == ["ours, shared", "ours"]
