"""What a program calls: the blocking client, the asyncio client, and the handles of jobs."""
