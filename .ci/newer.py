"""Print what is installed here in another version than in a lock file: python .ci/newer.py requirements/dev.txt."""

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

here = {package.name.lower().replace("_", "-"): package.version for package in importlib.metadata.distributions()}
for line in re.findall(r"^[a-z].*?(?= \\$)", Path(sys.argv[1]).read_text(encoding="utf-8"), re.MULTILINE):
    locked = Requirement(line)
    version = here.get(locked.name)  # what only builds a package is not installed
    if version is not None and (locked.marker is None or locked.marker.evaluate()) and version not in locked.specifier:
        print(f"{locked.name}: {locked.specifier} in the lock, {version} is newest")
