"""Connect to Redis: parse its URL, open connections, explain failures, and write the permissions of each role."""
