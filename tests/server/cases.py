"""What is sent, and what is to come back: one table for both classes, over sockets and without."""

from __future__ import annotations

from dataclasses import dataclass

from server.raw import ROW, batch, chunk, chunked, get, post, request

BAD = b'{"features":["a"]}'
RAISED = b'{"features":[66,3.5,1.4,0.2]}'
LONG = b'{"features":[5.1,3.5,1.4,0.2],"x":"' + b"x" * 4096 + b'"}'
"""Longer than ``max_body_bytes`` of the tests."""

PNG = b"Content-Type: image/png"
JSON = b"Content-Type: application/json"
LENGTH = b"Content-Length: %d" % len(ROW)
POST = b"POST /predict HTTP/1.1"
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
CONTINUE = b"Expect: 100-continue"
ORIGIN = b"Origin: https://app.example.org"
ELSEWHERE = b"Origin: https://evil.example"


BEFORE = "it writes its own 400 at once, before the reply that is under way, and closes"


@dataclass(frozen=True)
class Case:
    """One stream of requests and what it gives.

    Attributes:
        name: of the case.
        segments: what is sent, in pieces that arrive apart.
        statuses: of all replies, in order.
        is_closed: whether the server closes the connection, all by itself.
        kind: of the application.
        bodyless: the places of replies to HEAD.
        uvicorn: what uvicorn's class gives instead, where that is worse, and ``why`` that is so.
    """

    name: str
    segments: tuple[bytes, ...]
    statuses: tuple[int, ...]
    is_closed: bool = False
    kind: str = "inline"
    bodyless: tuple[int, ...] = ()
    uvicorn: tuple[int, ...] | None = None
    why: str = ""


def _case(name: str, sent: bytes | tuple[bytes, ...], *statuses: int, **more) -> Case:
    return Case(name, sent if isinstance(sent, tuple) else (sent,), statuses, **more)


def _closed(name: str, sent: bytes | tuple[bytes, ...], *statuses: int, **more) -> Case:
    return _case(name, sent, *statuses, is_closed=True, **more)


def _head_and_body(sent: bytes) -> tuple[bytes, bytes]:
    head, end, body = sent.partition(b"\r\n\r\n")
    return head + end, body


def _apart(sent: bytes, part: bytes) -> tuple[bytes, ...]:
    """Before the part, the part, and behind it."""
    before, _, behind = sent.partition(part)
    return before, part, behind


def _halves(sent: bytes) -> tuple[bytes, bytes]:
    return sent[: len(sent) // 2], sent[len(sent) // 2 :]


def _bytewise(sent: bytes) -> tuple[bytes, ...]:
    return tuple(sent[i : i + 1] for i in range(len(sent)))


ROUTES = [
    _case("a row", post(), 200),
    _case("a batch", batch(), 200),
    _case("a row that does not fit", post(BAD), 422),
    _case("a row at which the model raises", post(RAISED), 500),
    _case("a batch with such a row", batch(b'{"instances":[[66,1,1,1],[5,3,1,0]]}'), 500),
    _case("an empty body", post(b""), 400),
    _case("a body that is no JSON", post(b"{"), 400),
    _case("another version", post(b'{"features":[5,3,1,0],"model_version":"9"}'), 404),
    _case("outputs by name", post(b'{"features":[5,3,1,0],"outputs":["predict_proba"]}'), 200),
    _case("an output that only the native call gives", post(ROW[:-1] + b',"outputs":["decision_function"]}'), 200),
    _case("GET of a POST route", get(b"/predict"), 405),
    _case("HEAD of a POST route", get(b"/predict", method=b"HEAD"), 405, bodyless=(0,)),
    _case("OPTIONS of a POST route", get(b"/predict", method=b"OPTIONS"), 405),
    _case("PUT", request(b"PUT /predict HTTP/1.1", JSON, LENGTH, body=ROW), 405),
    _case("DELETE", get(b"/predict", method=b"DELETE"), 405),
    _case("HEAD of a GET route", get(method=b"HEAD"), 200, bodyless=(0,)),
    _case("HEAD, then a row", get(method=b"HEAD") + post(), 200, 200, bodyless=(0,)),
    _case("a GET route", get(), 200),
    _case("a path that is not there", post(path=b"/predictx"), 404),
    _case("a path that begins alike", post(path=b"/predict/batch/x"), 404),
    _case("a trailing slash", post(path=b"/predict/"), 404),
    _case("two slashes", post(path=b"//predict"), 404),
    _case("a path in capitals", post(path=b"/Predict"), 404),
    _case("dots in the path", post(path=b"/x/../predict"), 404),
    _case("a query string", post(path=b"/predict?a=1"), 200),
    _case("an empty query string", post(path=b"/predict?"), 200),
    _case("a fragment", post(path=b"/predict#a"), 200),
    _case("a path with percent codes", post(path=b"/%70redict"), 200),
    _case("a path with broken percent codes", post(path=b"/%predict"), 404),
    _closed("a path with bytes beyond ASCII", post(path=b"/\xc3\xa9"), 400),
    _case("an absolute target", post(path=b"http://localhost/predict"), 200),
    _case("an absolute target elsewhere", post(path=b"http://other:1/predict"), 200),
    _case("the target *", get(b"*", method=b"OPTIONS"), 404),
    _case("the prefix", post(path=b"/ml/predict"), 200, kind="prefix"),
    _case("no prefix", post(), 200, kind="prefix"),
    _case("the prefix twice", post(path=b"/ml/ml/predict"), 404, kind="prefix"),
    _case("a row, elsewhere", post(), 200, kind="executor"),
    _case("a batch, elsewhere", batch(), 200, kind="executor"),
    _case("a row at which the model raises, elsewhere", post(RAISED), 500, kind="executor"),
]

V123 = ROW[:-1] + b',"model_version":"1.2.3"}'

MODELS = [
    _case("a model by its name", post(path=b"/models/iris/predict"), 200),
    _case("a batch for it", post(batch().partition(b"\r\n\r\n")[2], path=b"/models/iris/predict/batch"), 200),
    _case("a version by its path", post(path=b"/models/iris/versions/1.2.3/predict"), 200),
    _case("a version by its path and its body", post(V123, path=b"/models/iris/versions/1.2.3/predict"), 200),
    _case("two versions that contradict each other", post(V123, path=b"/models/iris/versions/9/predict"), 404),
    _case("an alias that there is not", post(path=b"/models/iris@champion/predict"), 404),
    _case("an alias with percent codes", post(path=b"/models/iris%40champion/predict"), 404),
    _case("an alias in the place of a version", post(path=b"/models/iris/versions/@champion/predict"), 404),
    _case("a model that there is not", post(path=b"/models/iri/predict"), 404),
    _case("a model without a name", post(path=b"/models//predict"), 404),
    _case("a model whose name has percent codes", post(path=b"/models/%69ris/predict"), 200),
    _case("a model whose name has broken percent codes", post(path=b"/models/iris%4/predict"), 404),
    _case("a model whose name is coded twice", post(path=b"/models/%2569ris/predict"), 404),
    _case("a coded stroke", post(path=b"/models/iris%2Fpredict"), 200),
    _case("a coded line end", post(path=b"/models/iris%0D%0A/predict"), 404),
    _case("a name beyond ASCII", post(path=b"/models/%C3%A9/predict"), 404),
    _case("a row that does not fit a model", post(BAD, path=b"/models/iris/predict"), 422),
    _case("an empty body for a model", post(b"", path=b"/models/iris/predict"), 400),
    _case("GET of a model's POST route", get(b"/models/iris/predict"), 405),
    _case("a model below the prefix", post(path=b"/ml/models/iris/predict"), 200, kind="prefix"),
    _case(
        "models at once", post(path=b"/models/iris/predict") + post() + post(path=b"/models/a/predict"), 200, 200, 404
    ),
]

PIPELINES = [
    _case("2 at once", post() * 2, 200, 200),
    _case("5 at once", post() * 5, *[200] * 5),
    _case("50 at once", post() * 50, *[200] * 50),
    _case("50 at once, elsewhere", post() * 50, *[200] * 50, kind="executor"),
    _case(
        "all kinds at once",
        post()
        + get()
        + post(BAD)
        + get(b"/nope")
        + batch()
        + post()
        + chunked(chunk(ROW))
        + post(RAISED)
        + get()
        + post(),
        *(200, 200, 422, 404, 200, 200, 200, 500, 200, 200),
    ),
    _case("cold ones, then hot ones", get() * 3 + post() * 3, *[200] * 6),
    _case("hot ones, then cold ones", post() * 3 + get() * 3, *[200] * 6),
    _case("hot and cold ones, elsewhere", post() + get() + batch() + get(), 200, 200, 200, 200, kind="executor"),
    _case("equal heads, other bodies", post(b"[1, 2]") + post(b'"abcd"') + post(b"{    }"), 422, 422, 422),
    _case("bodies of other lengths", post() + post(b"") + post(ROW + b"   ") + post(b"{"), 200, 400, 200, 400),
    _case("one by one", (post(),) * 5, *[200] * 5),
    _case("hot and cold one by one", (post(), get(), post(), chunked(chunk(ROW)), batch()), *[200] * 5),
    _case("the next within the segment of an end", (post()[:-5], post()[-5:] + post()), 200, 200),
    _case("the next begun within it", (post()[:-5], post()[-5:] + post()[:20], post()[20:]), 200, 200),
    _case("the next begun behind a whole one", (post() + post()[:20], post()[20:]), 200, 200),
    _case("the next begun behind it, elsewhere", (post() + post()[:20], post()[20:]), 200, 200, kind="executor"),
    _case("empty lines between them", post() + b"\r\n\r\n" + post(), 200, 200),
    _case("an empty line before it", (b"\r\n", post()), 200),
    _case("half an empty line before it", (b"\r", b"\n" + post()), 200),
]

CONNECTIONS = [
    _closed("Connection: close", post(ROW, b"Connection: close"), 200),
    _closed("Connection: Close", post(ROW, b"Connection: Close"), 200),
    _closed("Connection: close, and more", post(ROW, b"Connection: foo, close"), 200),
    _closed("Connection: close, elsewhere", post(ROW, b"Connection: close"), 200, kind="executor"),
    _closed("close, and another behind it", post(ROW, b"Connection: close") + post(), 200),
    _closed("another, then close", post() + post(ROW, b"Connection: close"), 200, 200),
    _closed("another and close, elsewhere", post() + post(ROW, b"Connection: close"), 200, 200, kind="executor"),
    _case("Connection: keep-alive", post(ROW, b"Connection: keep-alive"), 200),
    _closed("HTTP/1.0", post(version=b"HTTP/1.0"), 200),
    _closed("HTTP/1.0 that would be kept", post(ROW, b"Connection: keep-alive", version=b"HTTP/1.0"), 200),
    _closed("GET by HTTP/1.0", request(b"GET /started HTTP/1.0"), 200),
    _closed("HTTP/1.2", post(version=b"HTTP/1.2"), 400),
    _closed("HTTP/11", post(version=b"HTTP/11"), 400),
    _closed("http/1.1", post(version=b"http/1.1"), 400),
    _closed("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    _case("Upgrade without Connection", post(ROW, b"Upgrade: h2c"), 200),
    _case("Connection: upgrade without Upgrade", post(ROW, b"Connection: upgrade"), 200),
    _case("a GET that asks for a WebSocket", get(b"/started", b"Connection: Upgrade", b"Upgrade: websocket"), 200),
    _closed("CONNECT", request(b"CONNECT localhost:80 HTTP/1.1"), 400),
]

FRAMING = [
    _case("names in lower case", request(POST, JSON.lower(), LENGTH.lower(), body=ROW), 200),
    _case("names in capitals", request(POST, b"CONTENT-TYPE: application/json", b"CONTENT-LENGTH: 30", body=ROW), 200),
    _case("a media type in capitals", request(POST, b"Content-Type: APPLICATION/JSON", LENGTH, body=ROW), 200),
    _case(
        "spaces around values",
        request(POST, b"Content-Type: \t application/json \t", b"Content-Length:   30  ", body=ROW),
        200,
    ),
    _case(
        "no space before values", request(POST, b"Content-Type:application/json", b"Content-Length:30", body=ROW), 200
    ),
    _case("zeros before the length", request(POST, JSON, b"Content-Length: 00030", body=ROW), 200),
    _closed("a length twice", request(POST, JSON, LENGTH, LENGTH, body=ROW), 400),
    _closed("two lengths", request(POST, JSON, LENGTH, b"Content-Length: 35", body=ROW), 400),
    _closed("a list of lengths", request(POST, JSON, b"Content-Length: 30, 30", body=ROW), 400),
    _closed("a length with a plus", request(POST, JSON, b"Content-Length: +30", body=ROW), 400),
    _closed("a negative length", request(POST, JSON, b"Content-Length: -1", body=ROW), 400),
    _closed("a length with a space", request(POST, JSON, b"Content-Length: 3 0", body=ROW), 400),
    _closed("a length in hex", request(POST, JSON, b"Content-Length: 0x1e", body=ROW), 400),
    _closed("a length with an underscore", request(POST, JSON, b"Content-Length: 3_0", body=ROW), 400),
    _closed("a length in other digits", request(POST, JSON, "Content-Length: ٣٠".encode(), body=ROW), 400),
    _closed("an empty length", request(POST, JSON, b"Content-Length:", body=ROW), 400),
    _closed("a huge length", request(POST, JSON, b"Content-Length: 99999999999999999999999", body=ROW), 400),
    _case("no length and no body", request(POST, JSON), 400),
    _closed("a body without a length", request(POST, JSON, body=ROW), 400),
    _closed("a body longer than its length", post() + b"xxxxx", 200, 400, uvicorn=(400,), why=BEFORE),
    _case("a body shorter than its length", request(POST, JSON, b"Content-Length: 35", body=ROW)),
    _case("the rest of it later", (request(POST, JSON, b"Content-Length: 35", body=ROW), b"     "), 200),
    _case("one chunk", chunked(chunk(ROW)), 200),
    _case("many chunks", chunked(*(chunk(ROW[i : i + 1]) for i in range(len(ROW)))), 200),
    _case("no chunks", chunked(), 400),
    _case("chunks that arrive apart", _bytewise(chunked(chunk(ROW))), 200),
    _case("chunks with extensions", chunked(chunk(ROW, b";a=b;c"), chunk(b" ", b';a="b"')), 200),
    _case("chunks and trailers", chunked(chunk(ROW), end=b"X-Sum: 1\r\n"), 200),
    _closed("chunks and a trailer that is a length", chunked(chunk(ROW), end=b"Content-Length: 5\r\n") + post(), 400),
    _case("chunks in capitals", chunked(chunk(ROW), coding=b"CHUNKED"), 200),
    _case("sizes in capitals and with zeros", chunked(b"001E\r\n" + ROW + b"\r\n"), 200),
    _closed("chunks and a length", chunked(chunk(ROW), headers=[LENGTH]), 400),
    _closed(
        "a length and chunks",
        request(POST, JSON, LENGTH, b"Transfer-Encoding: chunked", body=chunk(ROW) + b"0\r\n\r\n"),
        400,
    ),
    _closed("xchunked", chunked(chunk(ROW), coding=b"xchunked"), 400),
    _closed("chunked, identity", chunked(chunk(ROW), coding=b"chunked, identity"), 400),
    _closed("a size below zero", chunked(b"-1\r\n" + ROW + b"\r\n"), 400),
    _closed("a size in 0x", chunked(b"0x1e\r\n" + ROW + b"\r\n"), 400),
    _closed("a huge size", chunked(b"FFFFFFFFFFFFFFFFF\r\n" + ROW + b"\r\n"), 400),
    _closed("a chunk without its end", chunked(b"1e\r\n" + ROW + b"XX"), 400),
    _case("body after head", _head_and_body(post()), 200),
    _case("body after head, elsewhere", _head_and_body(post()), 200, kind="executor"),
    _case("byte by byte", _bytewise(post()), 200),
    _case("two, byte by byte", _bytewise(post() + post(BAD)), 200, 422),
    _case("a large head", post(ROW, b"X: " + b"x" * 16000), 200),
    _case("a large head, then a row", post(ROW, b"X: " + b"x" * 16000) + post(), 200, 200),
    _case("100 headers", post(ROW, *(b"X-%d: %d" % (i, i) for i in range(100))), 200),
    _closed("line feeds alone", post().replace(b"\r\n", b"\n"), 400),
    _closed("a line feed alone at the end", post().replace(b"\r\n\r\n", b"\r\n\n") + b"\r\n\r\n", 400),
    _closed("a carriage return alone", post(ROW, b"X: a\rY: b"), 400),
    _closed("a folded line", post(ROW, b"X: a", b" b"), 400),
    _closed("a space before the colon", post(ROW, b"X : a"), 400),
    _closed("a space in a name", post(ROW, b"X Y: a"), 400),
    _closed("no name", post(ROW, b": a"), 400),
    _closed("no colon", post(ROW, b"junk"), 400),
    _closed("a NUL in a value", post(ROW, b"X: a\0b"), 400),
    _closed("a NUL in a name", post(ROW, b"X\0: a"), 400),
    _case("bytes beyond ASCII in a value", post(ROW, b"X: \xe4\xff"), 200),
    _closed("a NUL in the path", post(path=b"/predict\0"), 400),
    _closed("a method in lower case", post().replace(b"POST", b"post"), 400),
    _closed("an unknown method", post().replace(b"POST", b"POKE"), 400),
    _closed("tabs in the first line", post().replace(b"POST ", b"POST\t"), 400),
    _closed("a word more in the first line", post(path=b"/predict x"), 400),
    _case("spaces in the first line", post().replace(b"POST ", b"POST  "), 200),
    _closed("no path", post(path=b""), 400),
    _closed("garbage", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64), 400),
    _closed("garbage behind a reply", (post(), b"garbage\r\n\r\n"), 200, 400),
    _closed("garbage behind a request", post() + b"garbage\r\n\r\n", 200, 400, uvicorn=(400,), why=BEFORE),
    _closed(
        "garbage behind a request, elsewhere",
        post() + b"garbage\r\n\r\n",
        200,
        400,
        kind="executor",
        uvicorn=(400,),
        why=BEFORE,
    ),
    _closed("NULs behind a request", (post(), bytes(8)), 200, 400),
]

EXPECTATIONS = [
    _case("100-continue, body at once", post(ROW, CONTINUE), 100, 200),
    _case("100-continue, body later", _head_and_body(post(ROW, CONTINUE)), 100, 200),
    _case("100-continue in capitals", _head_and_body(post(ROW, CONTINUE.upper())), 100, 200),
    _case("100-continue, refused by length", (*_head_and_body(post(LONG, CONTINUE)), post()), 413, 200),
    _case("100-continue, refused by type", (*_head_and_body(post(ROW, CONTINUE).replace(JSON, PNG)), post()), 415, 200),
    _case("100-continue by chunks", _head_and_body(chunked(chunk(ROW), headers=[CONTINUE])), 100, 200),
    _case("another expectation", post(ROW, b"Expect: banana"), 200),
    _case("a row, then 100-continue", (post() + _head_and_body(post(ROW, CONTINUE))[0], ROW), 200, 100, 200),
]

BODIES = [
    _case(
        "a request in a body that is refused", (*_head_and_body(post(post()).replace(JSON, PNG, 1)), post()), 415, 200
    ),
    _case(
        "a request in chunks that are refused",
        (*_apart(chunked(chunk(post())).replace(JSON, PNG, 1), post()), post()),
        415,
        200,
    ),
    _case("requests in a body that is too large", (_head_and_body(post(post() * 40))[0], *[post()] * 41), 413, 200),
    _case("a request in a header", (b"POST /nope HTTP/1.1\r\nX: ", post(), post()), 404, 200),
    _case(
        "a large head while one is under way",
        (post(), *_halves(post(ROW, b"X: " + b"x" * 160_000)), post()),
        200,
        200,
        200,
    ),
    _case("too large, as announced", post(LONG), 413),
    _case("too large, then a row", post(LONG) + post(), 413, 200),
    _case("too large, arriving later, then a row", (*_head_and_body(post(LONG)), post()), 413, 200),
    _case("too large in chunks", chunked(*[chunk(b" " * 1000)] * 5), 413),
    _case("too large in chunks, then a row", chunked(*[chunk(b" " * 1000)] * 5) + post(), 413, 200),
    _case("as large as it may be", post(ROW + b" " * (4096 - len(ROW))), 200),
    _case("a byte larger", post(ROW + b" " * (4097 - len(ROW))), 413),
]

HEADERS = [
    _case("an id of the caller's", post(ROW, b"X-Request-ID: abc-123"), 200),
    _case("an id of the caller's, refused row", post(BAD, b"X-Request-ID: abc-123"), 422),
    _case("an id that is none", post(ROW, b"X-Request-ID: a b"), 200),
    _case("an id that is too long", post(ROW, b"X-Request-ID: " + b"x" * 129), 200),
    _case("an empty id", post(ROW, b"X-Request-ID:"), 200),
    _case("two ids", post(ROW, b"X-Request-ID: one", b"X-Request-ID: two"), 200),
    _case("two ids, the second is none", post(ROW, b"X-Request-ID: one", b"X-Request-ID: t o"), 200),
    _case("an id a request", post(ROW, b"X-Request-ID: one") + post(ROW, b"X-Request-ID: two"), 200, 200),
    _case("a charset", request(POST, b"Content-Type: application/json; charset=utf-8", LENGTH, body=ROW), 200),
    _case("another charset", request(POST, b"Content-Type: application/json; charset=utf-16", LENGTH, body=ROW), 415),
    _case("a type ending in +json", request(POST, b"Content-Type: application/x+json", LENGTH, body=ROW), 200),
    _case("text/plain", request(POST, b"Content-Type: text/plain", LENGTH, body=ROW), 200),
    _case("no type", request(POST, LENGTH, body=ROW), 200),
    _case("image/png", request(POST, PNG, LENGTH, body=ROW), 415),
    _case("image/png and no JSON", request(POST, PNG, b"Content-Length: 3", body=b"PNG"), 415),
    _case("two types", request(POST, PNG, JSON, LENGTH, body=ROW), 200),
    _case("gzip", post(ROW, b"Content-Encoding: gzip"), 415),
    _case("identity", post(ROW, b"Content-Encoding: identity"), 200),
    _case("text/plain of another site", request(POST, b"Content-Type: text/plain", LENGTH, ELSEWHERE, body=ROW), 415),
    _case("the same, by Sec-Fetch-Site", request(POST, LENGTH, b"Sec-Fetch-Site: cross-site", body=ROW), 415),
    _case("JSON of another site", post(ROW, ELSEWHERE), 200),
    _case("CORS, no origin", post(), 200, kind="cors"),
    _case("CORS, its origin", post(ROW, ORIGIN), 200, kind="cors"),
    _case("CORS, another origin", post(ROW, ELSEWHERE), 200, kind="cors"),
    _case("CORS, an empty origin", post(ROW, b"Origin:"), 200, kind="cors"),
    _case("CORS, with and without an origin", post() + post(ROW, ORIGIN) + post(), 200, 200, 200, kind="cors"),
    _case(
        "CORS, its preflight",
        get(b"/predict", ORIGIN, b"Access-Control-Request-Method: POST", method=b"OPTIONS"),
        200,
        kind="cors",
    ),
    _case(
        "CORS, another's preflight",
        get(b"/predict", ELSEWHERE, b"Access-Control-Request-Method: POST", method=b"OPTIONS"),
        403,
        kind="cors",
    ),
    _case("CORS, a row that does not fit", post(BAD, ORIGIN), 422, kind="cors"),
]

LENIENT = [
    # Both answer these alike. RFC 9112 asks for a 400, or for a 505.
    _closed("HTTP/0.9", b"GET /started\r\n\r\n", 200),
    _closed("HTTP/2.0", post(version=b"HTTP/2.0"), 200),
    _case("no Host", b"POST /predict HTTP/1.1\r\n" + JSON + b"\r\n" + LENGTH + b"\r\n\r\n" + ROW, 200),
    _case("two Hosts", post(ROW, b"Host: elsewhere"), 200),
    # RFC 9110 asks for an answer as if nothing had been said of an upgrade; uvicorn drops the body.
    _case("a row and an upgrade to h2c", post(ROW, *UPGRADE), 400),
    _case("a row after it", (post(ROW, *UPGRADE), post()), 400, 200),
    _case("a row before it", (post() + post(ROW, *UPGRADE)), 200, 400),
    _case("a row and an upgrade to WebSocket", post(ROW, b"Connection: Upgrade", b"Upgrade: websocket"), 400),
]

CASES = [*ROUTES, *MODELS, *PIPELINES, *CONNECTIONS, *FRAMING, *EXPECTATIONS, *BODIES, *HEADERS, *LENIENT]
assert len({case.name for case in CASES}) == len(CASES)
