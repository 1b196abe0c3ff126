"""Trains the demo checkpoint; runs in the engine's environment only (torch, transformers, tokenizers)."""
