"""The demo: the bundled pictures, asked of a real worker through a real queue."""
