"""Policies around a backend. Each is a backend itself, so they nest; :mod:`.stacks` puts them together.

Outermost first, and why there:

=============  =====================================================================================================
Cached         an answer that is known needs nothing of what follows
FallingBack    each model gets the attempts of its own
Fitting        each model has a context of its own, and a prompt that does not fit is not worth an attempt
Retrying       each attempt is a request like the first
Metered        each request counts
Limited        while a call waits for its place, no bound on time runs
Awaiting       a server that loads its model is waited for, within the bounds of the call, and at no attempt's cost
Timed          what is left is the backend's time
TakingUp       whether a server goes on with a text is asked of it, and that is its time, too
=============  =====================================================================================================
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
