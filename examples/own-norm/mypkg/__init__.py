"""A package with a norm of its own."""
