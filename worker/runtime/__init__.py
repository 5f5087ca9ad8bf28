"""Modules that concern whole processes: the launcher, heartbeats, logs, memory and the ready file."""
