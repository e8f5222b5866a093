"""What figures come to: statistics, comparisons and verdicts."""
