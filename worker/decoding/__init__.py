"""Decodes files and prepares them for the model, in the worker's threads or in confined processes.

The worker uses `preparing`; `pool` and `decoder` are its side of the decoder processes. `child` runs inside them and
`confinement` restricts them; both sides share `protocol`.
"""
