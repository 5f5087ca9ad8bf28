"""``nameshot doctor``: find what is wrong with this machine, its settings and its Redis."""
