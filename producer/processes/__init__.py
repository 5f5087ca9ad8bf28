"""Start child processes that end with their parent, and keep them running."""
