"""A norm and a regularizer of your own."""
