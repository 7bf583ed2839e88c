from litestar import Litestar, get
from litestar.exceptions import PermissionDeniedException
from litestar.types import ASGIApp

from streamhub import Hub
from streamhub.web import EventStream

hub = Hub.from_env()


def guard(connection, handler):
    if connection.headers.get("authorization") != "Bearer secret":
        raise PermissionDeniedException


@get("/streams/{key:str}", guards=[guard])
async def events(key: str) -> ASGIApp:
    return EventStream(hub, key)


app = Litestar([events], lifespan=[hub.lifespan])
