"""The library's API: the blocking client, the asyncio client, job handles, and how both clients wait for answers."""
