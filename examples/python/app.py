"""Timetable of a stop: a page for people and JSON for programs.

The variable STOP is the name of the stop, and the configuration has its lines: `line.7` = "Harbour; 5:30; 23:30; 15"
(destination, first and last departure, minutes between departures).

    GET  /              page
    GET  /departures    JSON; ?after=HH:MM and ?limit=N select
    POST /check         JSON; the body is a list of "HH:MM": the next departure for each

Code at the top level of a module runs when the component is built, and modules must be imported there. Environment and
configuration exist only in a request.
"""

import html
import json
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import environment, store
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    Method_Get,
    Method_Post,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

CHUNK = 4096  # maximum number of bytes that blocking_write_and_flush accepts


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        try:
            status, kind, text = respond(request)
        except Refused as refused:
            status, kind, text = refused.status, "application/json", json.dumps({"error": str(refused)})
        response = OutgoingResponse(Fields.from_list([("content-type", kind.encode())]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        data = text.encode()
        with body.write() as stream:
            for at in range(0, len(data), CHUNK):
                stream.blocking_write_and_flush(data[at : at + CHUNK])
        OutgoingBody.finish(body, None)


def respond(request: IncomingRequest) -> tuple[int, str, str]:
    """Return status, content type and text of the response."""
    target = urlsplit(request.path_with_query() or "/")
    query = {name: values[-1] for name, values in parse_qs(target.query).items()}
    match (request.method(), target.path):
        case (Method_Get(), "/"):
            return 200, "text/html; charset=utf-8", page(departures())
        case (Method_Get(), "/departures"):
            after = minutes(query.get("after", "0:00"))
            found = [one for one in departures() if one["minute"] >= after]
            limit = query.get("limit", "20")
            if not limit.isdecimal():
                raise Refused(400, f"{limit!r} is not a number")
            return 200, "application/json", json.dumps(found[: int(limit)])
        case (Method_Post(), "/check"):
            times = parse(read(request))
            found = departures()
            answer = [next((one for one in found if one["minute"] >= time), None) for time in times]
            return 200, "application/json", json.dumps(answer)
        case (_, path):
            raise Refused(404, f"there is no {path}")


def departures() -> list[dict]:
    """Return the departures of the day in order."""
    found = []
    for key, value in store.get_all():
        if not key.startswith("line."):
            continue
        destination, first, last, every = (part.strip() for part in value.split(";"))
        for minute in range(minutes(first), minutes(last) + 1, int(every)):
            found.append({"minute": minute, "time": clock(minute), "line": key[5:], "to": destination})
    return sorted(found, key=lambda one: (one["minute"], one["line"]))


def page(found: list[dict]) -> str:
    stop = html.escape(dict(environment.get_environment()).get("STOP", "Stop"))
    rows = "\n".join(
        f'<tr class="line-{html.escape(one["line"])}"><td>{one["time"]}</td><td>{html.escape(one["line"])}</td>'
        f'<td>{html.escape(one["to"])}</td></tr>'
        for one in found
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{stop}</title></head>\n'
        f"<body><h1>{stop}</h1>\n<p>{len(found)} departures</p>\n<table>\n"
        f"<tr><th>Time</th><th>Line</th><th>To</th></tr>\n{rows}\n</table></body></html>\n"
    )


def minutes(text: str) -> int:
    hours, _, rest = text.partition(":")
    if not (hours.isdecimal() and rest.isdecimal()):
        raise Refused(400, f"{text!r} is not a time such as 9:05")
    return int(hours) * 60 + int(rest)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def parse(body: bytes) -> list[int]:
    try:
        times = json.loads(body)
    except ValueError:
        times = None
    if not isinstance(times, list) or not all(isinstance(time, str) for time in times):
        raise Refused(400, 'the body is not a list of times such as ["9:05"]')
    return [minutes(time) for time in times]


def read(request: IncomingRequest) -> bytes:
    """Read the whole body of the request."""
    body = request.consume()
    data = bytearray()
    with body.stream() as stream:
        while True:
            try:
                data += stream.blocking_read(1 << 16)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    break
                raise
    IncomingBody.finish(body)
    return bytes(data)
