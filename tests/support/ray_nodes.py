"""A real Ray cluster of several nodes on this machine, which listens on the loopback only."""

from __future__ import annotations

import contextlib
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@contextlib.contextmanager
def ray_nodes(nodes: Mapping[str, Mapping[str, str]]) -> Iterator[Any]:
    """Give a cluster; its nodes by their names, each with what its processes have in their environment."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    (head, first), *others = nodes.items()
    made = Cluster(initialize_head=True, head_node_args={**NODE, "node_name": head, "env_vars": dict(first)})
    try:
        for name, environment in others:
            add_node(made, name, environment)
        yield made
    finally:
        made.shutdown()


def add_node(cluster: Any, name: str, environment: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Have one more node join a cluster."""
    return cluster.add_node(**NODE, node_name=name, env_vars=dict(environment))


def raylet_of(node: Any) -> psutil.Process:
    """Return the process under which everything of a node runs."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def kill_with_all(raylet: psutil.Process) -> None:
    """Kill a node with all that runs there."""
    for process in (raylet, *raylet.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
