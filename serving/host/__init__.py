"""One GPU host: deploys beside what serves, looks, switches, goes back. Standard library only; deploy.sh is the entry."""
