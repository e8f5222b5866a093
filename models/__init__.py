"""What is trained: normalization layers, regularizers and small networks. Needs torch alone."""
