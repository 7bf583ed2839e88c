"""streamhub: durable, resumable token streams for asyncio. See the README."""
