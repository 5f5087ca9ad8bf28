"""Run all of nameshot from one command: Valkey, a worker and a picture server."""
