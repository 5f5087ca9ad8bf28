"""The library's API: the blocking client, the asyncio client, and job handles."""
