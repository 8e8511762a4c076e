"""The version of the installed distribution. Reading it costs as much as ``--help``, hence a module of its own."""

from importlib.metadata import version

__version__ = version("synapticllamas")
