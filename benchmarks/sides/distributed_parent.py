"""A program that has a model served over workers and asks it again and again; its parent kills it at some moment.

``python -m sides.distributed_parent MODEL WORKERS`` writes a line once it begins to load, one when the model is
loaded, and one a call.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sides.distributed_product import ask, over_managed


async def main() -> None:
    """Load, and ask until killed."""
    print("begins", flush=True)
    async with over_managed(Path(sys.argv[1]), int(sys.argv[2])) as product:
        print("ready", flush=True)
        while True:
            await ask(product.backend, 32)
            print("asked", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
