"""``python -m synaptic``: what ``synaptic`` is where it is not on the path."""

import sys

try:
    from synaptic.ui import main

    main()
except KeyboardInterrupt:  # in the middle of an import
    sys.exit(130)
