"""The demo: classify the bundled pictures with a real worker through a real queue."""
