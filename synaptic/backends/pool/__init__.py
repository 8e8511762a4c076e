"""Task distribution: whole calls over a pool of Ollama nodes, bound to a node when it can take them."""
