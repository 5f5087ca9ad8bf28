"""Primitives by which threads share resources: cancel scopes, budgets, weighted turns, single flight, isolation."""
