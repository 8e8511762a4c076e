"""A compiled pipeline as a drawing: for a terminal, for Markdown (Mermaid), for Graphviz, or as a picture (SVG)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
