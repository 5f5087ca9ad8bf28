"""From a file's bytes to what the model takes, in the worker's threads or in confined processes.

`preparing` is what the worker uses, `pool` and `process` are its side of the decoder processes; `child` is what runs
inside, `confinement` its locks and `protocol` what both sides say.
"""
