"""A first test of a GPU, in six minutes at most: ``python -m benchmarks.first_gpu``.

`steps` lists the steps and their time limits. `__main__` runs each step in its own process (`runner`), so that a step
which hangs or loses the device costs only its own time. `report` prints the results.
"""
