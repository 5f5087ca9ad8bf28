"""Zero-shot image classification through a queue: the client library.

```python
from producer import Client

client = Client()
job = client.submit("https://example.com/owl.jpg", ["fox", "bear", "seagull", "owl"])
print(job.result(timeout=30).best.label)
```

Importing this package loads neither torch nor redis-py. A client reads its settings when it is created, and connects
when it is first used.
"""

# Type checkers treat this name like typing's. The command must handle Ctrl-C before it loads anything, even typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from producer.public import *  # noqa: F403 - its __all__ lists the names
else:

    def __getattr__(name: str) -> object:
        """Load a public name at its first use."""
        import producer.public as public

        if name == "__all__" or name in public.__all__:
            return getattr(public, name)
        raise AttributeError(f"module 'producer' has no attribute {name!r}")

    def __dir__() -> list[str]:
        import producer.public as public

        return sorted({*globals(), *public.__all__})
