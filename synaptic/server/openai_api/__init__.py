"""OpenAI's dialect: bodies checked against the shapes it documents, answers in its official form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
