"""What a program that we start gets of our environment: what it needs, and none of the secrets that lie there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM: Final = """
PATH HOME USER LOGNAME SHELL LANG LANGUAGE TERM TZ TMPDIR TEMP TMP VIRTUAL_ENV
SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERPROFILE APPDATA LOCALAPPDATA PROGRAMDATA
NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES VK_ICD_FILENAMES VK_DRIVER_FILES VK_LAYER_PATH
LC_* XDG_* PYTHON* COVERAGE_* LD_* DYLD_* GGML_* OMP_* GOMP_* KMP_* CUDA_* HIP_* HSA_* ROCM_* ROCR_* SYCL_* ONEAPI_*
"""
_INSTALLER: Final = """
HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NETRC SSL_CERT_* PIP_* UV_*
CC CXX AR RANLIB CFLAGS CXXFLAGS CPPFLAGS LDFLAGS MAKEFLAGS CPATH LIBRARY_PATH INCLUDE LIB PKG_CONFIG_*
CMAKE_* CCACHE_* NINJA_* SDKROOT DEVELOPER_DIR MACOSX_DEPLOYMENT_TARGET
"""


def child_environment(more: Mapping[str, str] | None = None, *, installs: bool = False) -> dict[str, str]:
    """Return the environment of a child.

    Args:
        more: What it has besides, or instead.
        installs: Whether it is an installer or a compiler, whose own configuration applies, credentials included.
    """
    words = (_PROGRAM + _INSTALLER if installs else _PROGRAM).split()
    names = {word for word in words if not word.endswith("*")}
    beginnings = tuple(word[:-1] for word in words if word.endswith("*"))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in names or name.upper().startswith(beginnings)
    }
    return {**kept, **(more or {})}
