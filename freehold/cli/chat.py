"""`freehold chat`: talk to a served model in the terminal."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    printable,
)
from freehold.config import load
from freehold.core.errors import Code, UserError

_READ_S = 300


def chat(
    message: Annotated[
        str | None, typer.Argument(help="One message; without it a conversation starts.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Default: the first one served.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="At most so many per answer.")] = 512,
    as_json: Json = False,
) -> None:
    """Chat with a model; the answer streams. Ends with Ctrl-D."""
    with errors_in_a_sentence(as_json):
        gateway = reach.require_running(load.home())
        chosen = model or _first_model(gateway)
        history: list[dict[str, str]] = []
        if system:
            history.append({"role": "system", "content": system})
        if message is not None:
            answer, usage = _ask(gateway, chosen, [*history, _user(message)], max_tokens, as_json)
            if as_json:
                print_json({"model": chosen, "content": answer, "usage": usage})
            return
        _converse(gateway, chosen, history, max_tokens)


def _converse(
    gateway: reach.RunningGateway, model: str, history: list[dict[str, str]], max_tokens: int
) -> None:
    console.print(f"[dim]{plain(model)}; Ctrl-D ends[/dim]")
    while True:
        try:
            text = console.input("[bold]you:[/bold] ")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not text.strip():
            continue
        history.append(_user(text))
        try:
            answer, _ = _ask(gateway, model, history, max_tokens, quiet=False)
        except KeyboardInterrupt:
            history.pop()
            console.print("[dim] (stopped)[/dim]")
            continue
        history.append({"role": "assistant", "content": answer})


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _first_model(gateway: reach.RunningGateway) -> str:
    for model in gateway.call("GET", "/v1/models")["data"]:
        if "chat/completions" in model["freehold"]["endpoints"]:
            return str(model["id"])
    raise UserError(Code.MODEL_NOT_FOUND, "No chat model is served: see `freehold status`.")


def _ask(
    gateway: reach.RunningGateway,
    model: str,
    messages: list[dict[str, str]],
    max_tokens: int,
    quiet: bool,
) -> tuple[str, dict[str, Any] | None]:
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    parts: list[str] = []
    usage = None
    for chunk in _events(gateway, body):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text = choice["delta"].get("content")
            if text:
                parts.append(text)
                if not quiet:
                    sys.stdout.write(printable(text))
                    sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
    return "".join(parts), usage


def _events(gateway: reach.RunningGateway, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import httpx2

    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url}/v1/chat/completions"
    try:
        with httpx2.stream(
            "POST",
            url,
            json=body,
            headers=headers,
            timeout=_READ_S,
            trust_env=False,
            verify=gateway.verify,
        ) as response:
            if response.is_error:
                raise reach.refusal(orjson.loads(response.read()))
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = orjson.loads(line[6:])
                    if "error" in event:
                        raise reach.refusal(event)
                    yield event
    except httpx2.HTTPError:
        raise UserError(
            Code.GATEWAY_NOT_RUNNING, "The connection to the gateway broke: see `freehold status`."
        ) from None
