"""A client's operations on jobs in Redis: submit, look up, cancel, forget, purge and count them."""
