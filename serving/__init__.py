"""The engine side of the stack: vLLM's command line, its environment, and the demo that needs no GPU."""
