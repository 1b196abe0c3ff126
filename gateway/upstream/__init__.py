"""The way to the engines: which one, the HTTP client, what to do when one fails."""
