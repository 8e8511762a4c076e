"""The network of hosts that tests and benchmarks make: nothing of it stays, not even where its maker was killed."""

import signal
import subprocess
import sys

import psutil
from network_hosts import NEEDS_HOSTS, Hosts

MAKER = """
import os, sys, time
from network_hosts import Hosts
with Hosts(1) as hosts:
    print(hosts.start(1, "sleep", "600", env=os.environ).pid, flush=True)
    time.sleep(600)
"""


@NEEDS_HOSTS
def test_the_hosts_of_a_program_that_was_killed_are_removed():
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, text=True, env=environment) as maker:
        assert maker.stdout is not None
        asleep = psutil.Process(int(maker.stdout.readline()))
        maker.send_signal(signal.SIGKILL)
    with Hosts(1):
        there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"synaptic-{maker.pid}-" not in there
    psutil.wait_procs([asleep], timeout=30)
    assert not asleep.is_running() or asleep.status() == psutil.STATUS_ZOMBIE
