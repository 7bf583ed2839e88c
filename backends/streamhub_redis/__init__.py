"""streamhub on Redis or Valkey: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``."""

from streamhub_redis.backend import RedisBackend
from streamhub_redis.options import RedisOptions

__all__ = ["RedisBackend", "RedisOptions"]
