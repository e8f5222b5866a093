"""What a stored session looks like: tables, a summary, figures, a page."""
