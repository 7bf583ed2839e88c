import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from streamhub import Hub
from streamhub.web import sse_routes

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for this example")
django.setup()
hub = Hub.from_env()


async def index(request):
    async with hub.produce("greeting", unfinished="replace") as producer:
        await producer.send("hello from a view")
    return HttpResponse("sent")


async def authorize(request, key, action):
    return action in ("subscribe", "info")


urlpatterns = [path("", index)]
routes = [Mount("/streams", routes=sse_routes(hub, authorize=authorize)), Mount("/", app=get_asgi_application())]
application = Starlette(routes=routes, lifespan=hub.lifespan)
