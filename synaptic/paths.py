"""Where things live on this machine. Every function asks the environment at each call, so tests can move home."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APP = "synapticllamas"
_BEGINNINGS = ("/", "./", "../", "~")
PACKAGE = Path(__file__).resolve().parent


def expanded(name: str | Path) -> Path:
    """Return a path that a person wrote, with its ``~``; that stays where there is no home."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises where there is no home


def resolved(path: Path) -> Path:
    """Return where a path leads; a link that leads back to itself stays (``Path.resolve`` fails on Python 3.12).

    A relative one stays, too, where the working directory was removed.
    """
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        return path


def is_file(path: str | Path) -> bool:
    """Return whether a file is there; ``Path.is_file`` fails where a person gave a text that no path can be."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def is_dir(path: str | Path) -> bool:
    """Return whether a folder is there; ``Path.is_dir`` fails where a person gave a text that no path can be."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def names_pipeline_file(name: str) -> bool:
    """Return whether the name of a pipeline is meant as a file, and not as that of a built-in one."""
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml"))


def names_model_file(name: str) -> bool:
    """Return whether the name of a model is meant as a GGUF file; ``hf.co/user/model:file.gguf`` is not."""
    last = name.rpartition("/")[2].lower()
    return name.startswith(_BEGINNINGS) or "\\" in name or (last.endswith(".gguf") and ":" not in last)


def user_settings_file() -> Path:
    """``~/.synapticllamas.json``."""
    return Path.home() / ".synapticllamas.json"


def user_nodes_file() -> Path:
    """``~/.synapticllamas_nodes.json``, which the older program wrote."""
    return Path.home() / ".synapticllamas_nodes.json"


def project_settings_file() -> Path:
    """``./synapticllamas.json``."""
    return Path("synapticllamas.json")


def user_agents_dir() -> Path:
    """Where a person keeps agents for every project."""
    return Path(platformdirs.user_config_dir(APP)) / "agents"


def project_agents_dir() -> Path:
    """``./agents``."""
    return Path("agents")


def agents_dir_beside(pipeline: Path) -> Path:
    """``agents`` in the folder of a pipeline's file."""
    return pipeline.parent / project_agents_dir()


def shipped_agents_dir() -> Path:
    """The agents that come with the package: inside it when installed, beside it in a checkout."""
    installed = PACKAGE / "_agents"
    return installed if installed.is_dir() else PACKAGE.parent / "agents"


def builtin_pipelines_dir() -> Path:
    """The pipelines that come with the package."""
    return PACKAGE / "pipeline" / "builtin"


def model_cache_dir() -> Path:
    """Where fetched models are kept."""
    return Path(platformdirs.user_cache_dir(APP)) / "models"


def engine_dir() -> Path:
    """Where built engines are kept."""
    return Path(platformdirs.user_cache_dir(APP)) / "engines"


def engine_choice_file() -> Path:
    """Which engine a person told us to use, where that is not one of ours."""
    return Path(platformdirs.user_config_dir(APP)) / "engine.json"


def call_cache_file() -> Path:
    """Replies that are kept for steps with ``cache``."""
    return Path(platformdirs.user_cache_dir(APP)) / "replies.sqlite3"


def tensor_cache_dir() -> Path:
    """Tensors that RPC workers of this machine got once, so that they need not be sent again."""
    return Path(platformdirs.user_cache_dir(APP)) / "tensors"


def worker_facts_file() -> Path:
    """What was last learned of each RPC worker."""
    return Path(platformdirs.user_cache_dir(APP)) / "workers.json"


def draft_record_file() -> Path:
    """Return where it is kept which models' drafts were right."""
    return Path(platformdirs.user_cache_dir(APP)) / "drafts.json"


def worker_registry_file() -> Path:
    """Who holds which RPC worker."""
    return state_dir() / "workers.json"


def in_flight_dir() -> Path:
    """Where pools tell each other which calls the nodes have from them."""
    return state_dir() / "in-flight"


def served_workers_file() -> Path:
    """Which RPC workers ``workers start`` runs on this machine."""
    return state_dir() / "served-workers.json"


def machines_file() -> Path:
    """The machines that are reached over SSH."""
    return state_dir() / "machines.json"


def trusted_folders_file() -> Path:
    """Which folders the person trusts, and what was in them then."""
    return state_dir() / "trusted.json"


def client_keys_file() -> Path:
    """The keys of the gateway's clients."""
    return state_dir() / "keys.json"


def journal_file() -> Path:
    """The record of all runs."""
    return state_dir() / "journal.sqlite3"


def state_dir() -> Path:
    """History and logs."""
    return Path(platformdirs.user_state_dir(APP))
