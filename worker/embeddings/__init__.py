"""Caches in front of decoding and the engine, so that each picture and label is embedded once."""
