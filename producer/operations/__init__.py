"""What a client says to Redis about jobs: submit, look up, cancel, forget, purge, count."""
