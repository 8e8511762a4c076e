"""Print what is installed here in another version than in a lock file: python .ci/newer.py requirements/dev.txt."""

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

for line in re.findall(r"^[a-z].*?(?= \\$)", Path(sys.argv[1]).read_text(encoding="utf-8"), re.MULTILINE):
    locked = Requirement(line)
    if locked.marker is None or locked.marker.evaluate():
        here = importlib.metadata.version(locked.name)
        if here not in locked.specifier:
            print(f"{locked.name}: {locked.specifier} in the lock, {here} is newest")
