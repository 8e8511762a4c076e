"""A program that starts anew as another account: what it is then, and why it may not."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from synaptic.errors import UsageError
from synaptic.processes import account
from synaptic.processes.account import become

AS_ADMINISTRATOR = pytest.mark.skipif(os.geteuid() != 0, reason="needs the administrator")
TELLS = "import os; print(os.getuid(), os.getgid(), os.geteuid(), sorted(os.environ), os.environ['HOME'])"


def start_as(name: str, package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, pathlib; from synaptic.processes import account as a; a.PACKAGE = pathlib.Path(sys.argv[1])\n"
    code += "try:\n    a.become(sys.argv[2], sys.argv[3:])\nexcept a.UsageError as e: print(e.message)"
    environment = {**os.environ, "XDG_CACHE_HOME": "/root/x", "AWS_SECRET_ACCESS_KEY": "s", "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-c", code, str(package), name, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@AS_ADMINISTRATOR
def test_it_is_that_account_with_its_home_and_none_of_our_secrets():
    nobody = pwd.getpwnam("nobody")
    done = start_as("nobody", Path("/usr"), "/usr/bin/env")
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (told["HOME"], told["USER"], told["LOGNAME"]) == (nobody.pw_dir, "nobody", "nobody")
    assert not {"XDG_CACHE_HOME", "AWS_SECRET_ACCESS_KEY"} & set(told)
    ids = start_as("nobody", Path("/usr"), "/bin/sh", "-c", "id -u; id -g; id -G; cat /etc/shadow")
    groups = " ".join(str(group) for group in os.getgrouplist("nobody", nobody.pw_gid))
    assert ids.stdout.split("\n")[:3] == [str(nobody.pw_uid), str(nobody.pw_gid), groups]
    assert "Permission denied" in ids.stderr


@AS_ADMINISTRATOR
def test_a_program_that_the_account_may_not_read_is_named(tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert (
        f"nobody may not run this program: {closed}: Permission denied"
        in start_as("nobody", closed, "/bin/true").stdout
    )
    missing = start_as("nobody", Path("/usr"), "/no/such/program").stdout
    assert "nobody may not run this program: /no/such/program: No such file or directory" in missing


@pytest.mark.parametrize(
    ("name", "message"),
    [("no-such-account", "this machine has no account 'no-such-account'"), ("root", "root is the administrator")],
)
def test_what_is_no_account_for_it_is_refused(name: str, message: str):
    with pytest.raises(UsageError, match=message):
        become(name)


def test_only_the_administrator_may(monkeypatch: pytest.MonkeyPatch):
    other = next(one for one in pwd.getpwall() if one.pw_uid not in {0, os.getuid()})
    monkeypatch.setattr(account.os, "geteuid", lambda: 4242)
    with pytest.raises(UsageError, match="only the administrator") as caught:
        become(other.pw_name)
    assert f"sudo -H -u {other.pw_name}" in (caught.value.hint or "")
    monkeypatch.setattr(account.os, "geteuid", lambda: other.pw_uid)
    become(other.pw_name)  # it is that account already: nothing happens
