"""Not a package to import from: the folder that `serving run` puts into the engine's PYTHONPATH."""
