"""Being a process: the launcher, logs, memory, the ready file."""
