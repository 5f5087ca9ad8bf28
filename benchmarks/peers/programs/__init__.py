"""Each peer's program, as its documents teach it. They run in environments of their own and import nothing of ours."""
