"""Loads the plugin; nothing else."""

pytest_plugins = ["normbench.plugin"]
