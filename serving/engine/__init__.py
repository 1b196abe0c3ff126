"""The engine's own environment: installing it, checking the machine and checking our flags against it."""
