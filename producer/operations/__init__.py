"""What a client says to Redis about jobs: submit, look up, wait, cancel, forget, purge, count."""
