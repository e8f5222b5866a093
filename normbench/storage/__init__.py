"""What is kept on disk: rows, sessions, baselines, and the history of the cases."""
