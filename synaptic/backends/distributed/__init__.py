"""Distributed inference: one model whose layers are spread over llama.cpp RPC workers."""
