"""The gateway: everything between a client with an API key and a vLLM engine."""

__version__ = "0.1.0"
