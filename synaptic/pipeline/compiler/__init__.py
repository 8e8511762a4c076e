"""A pipeline and what it names to a graph: references, types and dependencies, all checked before any call."""

from synaptic.pipeline.compiler.compiling import CompileContext, compile_pipeline, examine, examine_text

__all__ = ["CompileContext", "compile_pipeline", "examine", "examine_text"]
