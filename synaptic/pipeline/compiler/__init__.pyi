from .compiling import CompileContext as CompileContext
from .compiling import compile_pipeline as compile_pipeline
from .compiling import examine as examine
from .compiling import examine_text as examine_text
from .declarations import agents_beside as agents_beside
