"""One GPU host: deploys beside what serves, looks, switches, goes back. Standard library only, behind deploy.sh."""
