"""The vision canary: whether a release, asked through its public address, sees what is in the golden pictures."""
