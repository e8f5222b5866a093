"""What is to be run, and what must hold of it: grids and claims, read from TOML."""
