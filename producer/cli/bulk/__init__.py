"""``nameshot bulk``: read a list of images, write a file of answers."""
