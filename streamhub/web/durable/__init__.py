"""A server of the open Durable Streams protocol over a hub: streams for any language that speaks HTTP.

The protocol is that of the specification "The Durable Streams Protocol", version 1.0; its suite of conformance tests
judges this package on every backend. Forks and subscriptions, which are parts of their own, answer 501.
"""

from streamhub.web.durable.app import DurableStreams
from streamhub.web.durable.headers import REQUEST_HEADERS, RESPONSE_HEADERS

__all__ = ["REQUEST_HEADERS", "RESPONSE_HEADERS", "DurableStreams"]
