"""vLLM's own benchmark over a profile's knobs, directly and through the gateway."""
