"""Child processes on a leash, and how they are kept running: for the embedded system and for ``nameshot worker``."""
