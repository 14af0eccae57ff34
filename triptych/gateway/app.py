"""The gateway as an application: the APIs, the page, and how each of them says what went wrong."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

import triptych
from triptych.client import Client, ClientError, NotReady, NotThere
from triptych.gateway import (
    openai,
    openai_edits,
    openai_generations,
    openai_jobs,
    page,
    web_files,
    webui,
)
from triptych.gateway.access import BoundedBody, KnownHosts, require_key
from triptych.gateway.access_log import AccessLog
from triptych.gateway.background import Background
from triptych.gateway.docs import describe
from triptych.gateway.errors import Problem, body_problem, invalid, problem
from triptych.gateway.gone import Unended
from triptych.gateway.jobs import Jobs
from triptych.gateway.kept import Kept
from triptych.gateway.keys import Keys
from triptych.gateway.metrics import Counts, Metrics, Pictures
from triptych.gateway.studio import Studio
from triptych.gateway.tabs import Tabs
from triptych.gateway.webhooks import Webhooks
from triptych.limits import AT_A_TIME

LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]


UNHEALTHY = {NotThere: "no server answers", NotReady: "the server has not loaded its model"}
"""What /healthz, which asks for no key, says of a server by its error: no address of it."""


class Health(BaseModel):
    """`ok`, or the reason why the server cannot draw now."""

    status: str


def create_app(
    url: str,
    api_key: str | None = None,
    timeout: float = 300,
    max_pictures: int = AT_A_TIME,
    hosts: Sequence[str] | None = None,
    origins: Sequence[str] = (),
    model_aliases: Mapping[str, str | None] | None = None,
    keys: Keys | None = None,
    log_prompts: bool = False,
    webhooks: Webhooks | None = None,
    kept: Kept | None = None,
    public_url: str | None = None,
    spans: Any = None,
) -> FastAPI:
    """The application in front of the Triton whose gRPC is at `url`.

    `api_key`: what a request must bring, None for no key; or `keys`: those of several callers.
    `timeout`: seconds for a picture.
    `max_pictures`: how many are drawn at a time, more are refused. `hosts`: names by which a
    request may call this server, any with None; a page elsewhere cannot forge them. `origins`: of
    the pages elsewhere that may ask. `model_aliases`: more names in OpenAI's API, each of a model,
    or of the one that is meant by none. `log_prompts`: whether the access log has prompts.
    `webhooks`: where jobs may be told of, nowhere with None. `kept`: the pictures that
    are asked for by url, in memory with None. `public_url`: what their addresses begin with, up to
    a slash; with None it is as the request has it. `spans`: a `Spans`, if requests are traced.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.studio = Studio(Client(url), max_pictures, timeout)
        app.state.jobs = Jobs()
        app.state.background = Background(app.state.studio)
        app.state.tabs = Tabs(lambda status: counted.failed("/api/picture", status))
        app.state.checkpoints = {}  # by caller, chosen by the WebUI's options
        app.state.started = int(time.time())
        yield
        await app.state.tabs.close()
        await app.state.background.close()
        app.state.studio.close()
        if spans is not None:
            await asyncio.to_thread(spans.close)

    app = FastAPI(
        title="Triptych",
        description="Stable Diffusion: OpenAI's images API, the WebUI's, and a page at /.",
        version=triptych.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.api_key = api_key
    app.state.keys = keys
    app.state.origins = tuple(origins)
    app.state.webhooks = webhooks or Webhooks()
    app.state.kept = kept or Kept()
    app.state.public_url = public_url
    app.state.aliases = dict(model_aliases or {})
    routers = (
        openai.router,
        openai_generations.router,
        openai_generations.short,
        openai_jobs.router,
        openai_jobs.short,
        openai_edits.router,
        openai_edits.short,
        openai.files,
        webui.router,
        webui.internal,
        page.router,
        web_files.router,
    )
    for router in routers:
        app.include_router(router)
    app.add_middleware(BoundedBody)
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=hosts, respond=respond)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )

    routes = (route for router in routers for route in router.routes)
    counted = Metrics({route.path for route in routes if isinstance(route, APIRoute)})

    def counts() -> dict[str, Counts]:
        told = keys or app.state.studio  # which is there once the application has started
        return told.counts() if told is not None else {}

    app.state.studio = None
    app.state.registry = counted.registry
    app.state.registry.register(Pictures(counts))
    if webhooks is not None:
        app.state.registry.register(webhooks.outcomes)

    @app.get("/metrics", include_in_schema=False, dependencies=[Depends(require_key)])
    def metrics() -> Response:
        return Response(generate_latest(app.state.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(describe(app.openapi()), headers=web_files.HEADERS)

    @app.get("/healthz", tags=["Operation"], responses={503: {"model": Health}})
    async def healthz(request: Request) -> Health:
        """200 if the server is there and has loaded a model, else 503 with the reason."""
        try:
            await request.app.state.studio.check()
        except ClientError as error:
            reason = problem(error)
            health = Health(status=UNHEALTHY.get(type(error), str(error)))
            return JSONResponse(health.model_dump(), 503, {**reason.headers, "Retry-After": "5"})
        return Health(status="ok")

    @app.exception_handler(ClientError)
    async def client_error(request: Request, error: ClientError) -> JSONResponse:
        return respond(request, problem(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.detail == "There was an error parsing the body":  # FastAPI's, of no UTF-8
            error = Problem(400, "body: not JSON in UTF-8")
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        untyped = body_problem(error.errors(), request.headers.get("content-type", ""))
        if untyped is None and request.url.path.startswith(webui.PREFIXES):
            return webui.invalid_response(error.errors())
        return respond(request, untyped or invalid(error.errors()))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return respond(request, Problem(499, "the client has left"))

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> JSONResponse:
        return respond(request, HTTPException(500, "the gateway failed; its log says why"))

    # Around all of Starlette's own too, so that the answer to a failure has an id and a line.
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: AccessLog(
        Unended(build(), respond), log_prompts, counted, spans
    )
    app.openapi = functools.partial(_openapi, app, app.openapi)
    return app


def _openapi(app: FastAPI, whole: Callable[[], dict]) -> dict:
    """FastAPI's description without the 422 that only the WebUI's API gives."""
    if app.openapi_schema is None:
        for path, methods in whole()["paths"].items():
            for method in methods.values():
                if not path.startswith(webui.PREFIXES):
                    method["responses"].pop("422", None)
    return app.openapi_schema


def respond(request: Request, error: HTTPException) -> JSONResponse:
    """The error in the shape of the API that was asked."""
    path = request.url.path
    for api, prefixes in ((openai, (openai.PREFIX, "/images/")), (webui, webui.PREFIXES)):
        if path.startswith(prefixes):
            return api.error_response(error)
    return page.error_response(error)
