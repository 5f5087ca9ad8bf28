"""Everything that a GPU has to tell the first time there is one, in six minutes: ``python -m benchmarks.first_gpu``.

`steps` lists what is done and how long each part may take; `__main__` runs each in a process of its own (`runner`), so
that one which hangs, or loses the device, costs its own time only; `report` prints what came out.
"""
