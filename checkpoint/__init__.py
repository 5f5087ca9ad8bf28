"""Trains, evaluates and writes the small checkpoint that ships with the worker; no part of the installed package."""
