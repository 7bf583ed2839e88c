"""A server of Durable Streams: what ``streamhub serve`` runs, for those who bring an ASGI server of their own.

Needs the extra ``serve``, or ``web`` and a server.
"""

from streamhub.web.server.app import serve_app

__all__ = ["serve_app"]
