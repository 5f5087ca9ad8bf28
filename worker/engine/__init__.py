"""Batches on a device: items of many jobs gather in lanes and pass through the model together."""
