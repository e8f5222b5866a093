"""Whether a layer is what it says it is."""
