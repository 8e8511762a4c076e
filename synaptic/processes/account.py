"""Become another account of this machine, one that owns nothing, and start anew as that. Needs the administrator."""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING

from synaptic.errors import UsageError
from synaptic.paths import PACKAGE
from synaptic.processes.environment import child_environment
from synaptic.processes.lifeline import run_instead

if TYPE_CHECKING:
    from collections.abc import Sequence


def become(name: str, command: Sequence[str] = ()) -> None:
    """Start this program anew as another account, with its home and nothing of this one's environment.

    Returns at once where this process is that account already; else this program ends here. ``command`` runs instead of
    this program.

    Raises:
        UsageError: If there is no such account, it is the administrator, we may not become it, or it may not read
            this program.
    """
    account = _account(name)
    if os.geteuid() == account.pw_uid:
        return
    if os.geteuid() != 0:
        raise UsageError(
            f"only the administrator can start something as {name}",
            hint=f"sudo -H -u {name} synaptic workers start",
        )
    _start_anew(account, command or [sys.executable, *sys.orig_argv[1:]])


def _account(name: str) -> pwd.struct_passwd:
    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise UsageError(
            f"this machine has no account {name!r}", hint=f"make one that owns nothing: useradd --system -m {name}"
        ) from error
    if found.pw_uid == 0:
        raise UsageError(
            f"{name} is the administrator: whoever reaches a worker can run code as its account",
            hint="make an account that owns nothing: useradd --system -m llama",
        )
    return found


def _start_anew(account: pwd.struct_passwd, command: Sequence[str]) -> None:
    who = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    # What XDG_* names are folders of the one who called.
    environment = {key: value for key, value in child_environment(who).items() if not key.startswith("XDG_")}
    try:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as error:
        raise UsageError(
            f"this process may not become {account.pw_name}: {error.strerror}",
            hint="does a container or a service take the right to (CAP_SETUID, CAP_SETGID) from it?",
        ) from error
    if not os.access(".", os.R_OK | os.X_OK):
        os.chdir("/")
    try:
        if not os.access(PACKAGE, os.R_OK | os.X_OK):
            raise PermissionError(0, "Permission denied", str(PACKAGE))
        run_instead([*command], environment)
    except OSError as error:
        raise UsageError(
            f"{account.pw_name} may not run this program: {error.filename or command[0]}: {error.strerror}",
            hint="install it where every account can read it, as below /opt",
        ) from error
