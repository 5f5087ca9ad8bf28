"""Caches of image and label embeddings, which save decoding and forward passes."""
