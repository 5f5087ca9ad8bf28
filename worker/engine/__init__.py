"""Dynamic batching: items of many jobs queue up and run through the model together."""
