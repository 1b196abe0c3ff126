"""The Helm chart and what it is made with."""
