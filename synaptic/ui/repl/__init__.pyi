from .app import open_repl as open_repl
