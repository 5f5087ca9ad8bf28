"""Decodes files and prepares them for the model, in the worker's threads or in confined processes.

The worker calls `preparing`; `pool` and `decoder` are the worker's side of the decoder processes. `child` runs in a
decoder process, which `confinement` restricts; both sides use `protocol`.
"""
