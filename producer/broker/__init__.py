"""How to reach Redis: its URL, a connection, its failures in sentences, and who may do what in it."""
