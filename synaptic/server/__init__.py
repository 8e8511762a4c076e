"""What others can call: SynapticLlamas as a server."""
