"""``nameshot bulk``: read a list of images and write a file of answers."""
