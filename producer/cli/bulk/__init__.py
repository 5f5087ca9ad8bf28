"""``nameshot bulk``: a file of images in, a file of answers out."""
