"""`hone serve`: runs and models behind an OpenAI-compatible address, for this machine only unless told otherwise."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
from contextlib import suppress
from typing import Annotated

import typer

from hone.core.errors import HoneError
from hone.serve.guard import LOOPBACK


def command(
    models: Annotated[list[str], typer.Argument(help="Run folders, adapters, model folders or hub ids; each is a model by its last name.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name by which clients may call this server.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Answers that are written at a time, for each model.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that may be asked for.")] = 4096,
    cache_gib: Annotated[float, typer.Option(min=0.01, help="Memory for keys and values, for each model.")] = 2.0,
) -> None:
    """Serve models to any OpenAI client. The key comes from HONE_API_KEY, or is made and printed once."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise HoneError("S040", f"the server needs {package}, which is not installed", fix="pip install 'hone-llm[serve]'")
    if host not in LOOPBACK and not allow_host:
        what = f"listening on {host} opens this server to others, and none of their names for it is allowed"
        raise HoneError("S042", what, where="--host", fix="add --allow-host NAME-OR-ADDRESS that clients will use, or leave out --host")
    _serve(models, host, port, hosts=allow_host or [], limits_of=(rows, max_tokens, round(cache_gib * 2**30)))


def _serve(models: list[str], host: str, port: int, *, hosts: list[str], limits_of: tuple[int, int, int]) -> None:
    import uvicorn

    from hone.serve.app import build
    from hone.serve.limits import Limits
    from hone.serve.voices import open_voices

    limits = Limits(rows=limits_of[0], max_tokens=limits_of[1], cache_bytes=limits_of[2])
    given = os.environ.get("HONE_API_KEY")
    token = given or secrets.token_urlsafe(32)
    with bound(host, port) as place:
        voices = open_voices(models, limits)
        typer.echo(f"models   {', '.join(voices)}")
        typer.echo(f"address  http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        typer.echo(f"key      {'from HONE_API_KEY' if given else token}")
        app = build(voices, token=token, hosts=[*hosts, host], limits=limits)
        quiet = {"log_level": "warning", "access_log": False, "server_header": False}
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=10, **quiet)).run(sockets=[place])  # type: ignore[arg-type]


def bound(host: str, port: int) -> socket.socket:
    """The address, taken before any model is loaded; nobody is answered yet. Raises S044 where it cannot be had."""
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        another = port + 1 if 1024 <= port < 65535 else 8000
        fix = f"choose another port (--port {another}), or end the program that has this one"
        raise HoneError("S044", f"{host}:{port} cannot be listened on: {error.strerror or error}", where="--port", fix=fix) from None
    return place
