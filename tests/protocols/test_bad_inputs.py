"""A client's mistake is told to the client: a 4xx with one body, however wrong the request; never a 500."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.anyio

GOOD = b'{"features":[5.1,3.5,1.4,0.2]}'
MEMBERS = {"type", "title", "status", "detail", "instance", "error", "status_code", "timestamp", "request_id"}


def features(text: str) -> bytes:
    return b'{"features":%s}' % text.encode()


BODIES = {
    "NaN": (features("[NaN,1,1,1]"), 400),
    "Infinity": (features("[Infinity,1,1,1]"), 400),
    "a number beyond float64": (features("[1e999,1,1,1]"), 400),
    "an integer of 5000 digits": (features(f"[{'9' * 5000},1,1,1]"), 400),
    "beyond float32": (features("[1e39,1,1,1]"), 422),
    "an integer that a float cannot hold": (features("[9007199254740993,1,1,1]"), 422),
    "too short": (features("[1,2,3]"), 422),
    "too long": (features("[1,2,3,4,5]"), 422),
    "empty": (features("[]"), 422),
    "a list of lists": (features("[[1,2,3,4]]"), 422),
    "null for the row": (features("null"), 422),
    "a string for the row": (features('"abcd"'), 422),
    "a number as a string": (features('["1.5",1,1,1]'), 422),
    "a boolean": (features("[true,1,1,1]"), 422),
    "null": (features("[null,1,1,1]"), 422),
    "an unknown name": (features('{"x0":1,"x1":1,"x2":1,"y3":1}'), 422),
    "a missing name": (features('{"x0":1,"x1":1,"x2":1}'), 422),
    "an empty object": (features("{}"), 422),
    "a pair without a value": (features('[{"name":"x0"}]'), 422),
    "a pair twice": (features('[{"name":"x0","value":1},{"name":"x0","value":1}]'), 422),
    "a pair whose name is a number": (features('[{"name":1,"value":1}]'), 422),
    "pairs and numbers": (features('[{"name":"x0","value":1},1,1,1]'), 422),
    "a number and a pair": (features('[1,{"name":"x0","value":1},1,1]'), 422),
    "no features": (b"{}", 422),
    "an unknown member": (GOOD[:-1] + b',"feature":1}', 422),
    "a version that is a number": (GOOD[:-1] + b',"model_version":1}', 422),
    "a list": (b"[]", 422),
    "null for the document": (b"null", 422),
    "no body": (b"", 400),
    "truncated": (GOOD[:-3], 400),
    "two documents": (GOOD + b"\n" + GOOD, 400),
    "a comment": (b"/* x */" + GOOD, 400),
    "no UTF-8": (b'{"features":"\xff\xfe"}', 400),
    "a lone surrogate": (features('["\\ud800",1,1,1]'), 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "a key twice": (GOOD[:-1] + b"," + GOOD[1:], 400),
    "a key twice, once escaped": (b'{"features":[1,1,1,1],"\\u0066eatures":[2,2,2,2]}', 400),
    "a key twice in a row": (features('{"x0":1,"x0":2,"x1":1,"x2":1,"x3":1}'), 400),
    "a key twice beside a colon in a string": (
        b'{"model_version":"a:b","model_version":"1.2.3","features":[1,1,1,1]}',
        400,
    ),
    **{
        f"a key twice, once with {name} before its colon": (
            b'{"model_version"%s:null,"model_version":"1.2.3","features":[1,1,1,1]}' % space,
            400,
        )
        for name, space in {"a space": b" ", "a tab": b"\t", "a line end": b"\n", "a return": b"\r"}.items()
    },
    "a key twice and a quoted colon": (
        b'{"model_version":"\\":","model_version":"1.2.3","features":[1,1,1,1]}',
        400,
    ),
    "nested a thousand deep": (b"[" * 1000 + b"]" * 1000, 422),
    "objects nested a thousand deep, a key twice": (b'{"a":' * 1000 + b'{"b":1,"b":2}' + b"}" * 1000, 400),
    "nested 100 000 deep": (b"[" * 100_000 + b"]" * 100_000, 400),
    "a pickle": (b"\x80\x04cos\nsystem\n(\x8c\x02idtR.", 400),
}


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES.keys())
async def test_a_wrong_body_is_refused_and_the_next_request_answered(make_app, client_of, body, status):
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        good = await client.post("/predict", content=GOOD, headers={"Content-Type": "application/json"})

    assert reply.status_code == status, reply.text
    assert_problem(reply, status)
    assert good.status_code == 200


@pytest.mark.parametrize("text", ["12:30", '\\":', " :", "a\\u003ab", "::"])
async def test_colons_in_strings_are_no_keys(make_app, client_of, text):
    body = b'{"model_version":"%s", "features":[1,1,1,1]}' % text.encode()
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=body)

    assert reply.status_code == 404
    assert reply.json()["title"] == "No such model version"


def assert_problem(reply, status):
    assert reply.headers["Content-Type"] == "application/problem+json"
    body = reply.json()
    assert set(body) >= MEMBERS
    assert body["status"] == body["status_code"] == status
    assert body["error"] == body["detail"]
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert len(reply.content) <= 8192


BATCHES = {
    "no rows": ("[]", "1 to 1000 rows"),
    "an empty object": ("{}", "a list of rows, or an object of columns by feature name, in 'instances'"),
    "a text": ('"abc"', "a list of rows"),
    "columns of no rows": ('{"x0":[],"x1":[],"x2":[],"x3":[]}', "1 to 1000 rows"),
    "too many rows in one column": (
        json.dumps({"x0": [1], "x1": [1], "x2": [1], "x3": [1] * 1001}),
        "came 1001 rows",
    ),
    "a row in place of columns": ('{"x0":1,"x1":1,"x2":1,"x3":1}', "column 'x0': wanted a list with a value for each"),
    "columns of two lengths": (
        '{"x0":[1,2],"x1":[1,2],"x2":[1],"x3":[1,2]}',
        "column 'x2': wanted 2 values, as in column 'x0'; came a list of 1 value",
    ),
    "a misspelt column": ('{"x0":[1],"x1":[1],"x2":[1],"x33":[1]}', "did you mean 'x3'?"),
    "a text in row 1 of a column": ('{"x0":[1,2],"x1":[1,"2"],"x2":[1,2],"x3":[1,2]}', "row 1, column 'x1'"),
    "ragged rows": ("[[1,2,3,4],[1]]", "row 1"),
    "a row that is a number": ("[[1,2,3,4],7]", "row 1"),
    "a string in row 2": ('[[1,2,3,4],[1,2,3,4],[1,"a",3,4]]', "row 2, column 'x1'"),
    "a boolean in the second of two objects": (
        '[{"x0":1,"x1":1,"x2":1,"x3":1},{"x0":1,"x1":1,"x2":1,"x3":true}]',
        "row 1, column 'x3'",
    ),
    "an unknown name in row 1": (
        '[{"x0":1,"x1":1,"x2":1,"x3":1},{"x0":1,"x1":1,"x2":1,"x33":1}]',
        "did you mean 'x3'?",
    ),
}


@pytest.mark.parametrize(("rows", "told"), BATCHES.values(), ids=BATCHES.keys())
async def test_a_wrong_batch_is_refused_with_row_and_column(make_app, client_of, rows, told):
    async with client_of(make_app()) as client:
        reply = await client.post("/predict/batch", content=b'{"instances":%s}' % rows.encode())

    assert reply.status_code == 422
    assert_problem(reply, 422)
    assert told in reply.json()["detail"]


async def test_an_error_tells_row_column_wanted_and_came(make_app, client_of):
    rows = [[1, 2, 3, 4], [1, "secret-value", 3, None]]
    async with client_of(make_app()) as client:
        reply = await client.post("/predict/batch", json={"instances": rows})

    assert reply.json()["errors"] == [
        {
            "row": 1,
            "column": "x1",
            "wanted": "a finite number",
            "came": "a string",
            "hint": "numbers are never read out of strings: send it without quotes",
        },
        {"row": 1, "column": "x3", "wanted": "a finite number", "came": "null", "hint": None},
    ]
    assert "secret-value" not in reply.text


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"instances": [["a"] * 4] * 20_000}),
        json.dumps({"instances": [{f"{i}" * 3000: 1 for i in range(9)}]}),
        json.dumps({"instances": [{"ü\n" * 30_000: 1}]}),
        json.dumps({f"k{i}" * 1000: 1 for i in range(100)}),
        json.dumps({"instances": [[1, 2, 3, 4]], "model_version": "v" * 100_000}),
    ],
    ids=["20 000 bad rows", "long names", "escapes", "long members", "a long version"],
)
async def test_an_error_stays_small_whatever_was_sent(make_app, client_of, body):
    async with client_of(make_app(max_batch_size=100_000)) as client:
        reply = await client.post("/predict/batch", content=body)

    assert reply.status_code in {404, 422}
    assert len(reply.content) <= 8192
    assert len(reply.json().get("errors", [])) <= 10


async def test_a_hundred_thousand_equal_keys_are_refused_quickly(make_app, client_of):
    body = b"{" + b",".join(b'"k%d":1' % i for i in range(100_000)) + b',"k99999":1}'
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=body)

    assert reply.status_code == 400
    assert "twice" in reply.json()["detail"]


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_the_limit_is_not_read_to_its_end(make_app, is_chunked):
    app = make_app(max_body_bytes=2048)
    sent, received = [], []

    async def receive():
        received.append(1)
        return {"type": "http.request", "body": b" " * 1024, "more_body": len(received) < 100}

    async def send(message):
        sent.append(message)

    headers = [] if is_chunked else [(b"content-length", b"102400")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    await app(scope, receive, send)

    assert sent[0]["status"] == 413
    assert len(received) == (3 if is_chunked else 0)


TYPES = {
    None: 200,
    "application/json": 200,
    "application/json; charset=utf-8": 200,
    'Application/JSON; charset="UTF-8"': 200,
    "application/vnd.api+json": 200,
    "text/plain;charset=UTF-8": 200,
    "application/x-www-form-urlencoded": 200,
    "application/json; charset=utf-16": 415,
    "application/xml": 415,
    "multipart/form-data": 415,
    "application/octet-stream": 415,
    "application/vnd.bentoml+pickle": 415,
    ';;;="\\': 415,
}


@pytest.mark.parametrize(("content_type", "status"), TYPES.items())
async def test_json_is_read_from_what_clients_send_by_default(make_app, client_of, content_type, status):
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=GOOD, headers=headers)

    assert reply.status_code == status
    if status != 200:
        assert_problem(reply, status)


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("br", 415), ("identity", 200)])
async def test_a_coded_body_is_refused(make_app, client_of, coding, status):
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=GOOD, headers={"Content-Encoding": coding})

    assert reply.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 415),
        ({"Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"}, 415),
        ({"Sec-Fetch-Site": "cross-site"}, 415),
        ({"Origin": "https://evil.example", "Content-Type": "text/plain"}, 415),
        ({"Origin": "null", "Content-Type": "text/plain"}, 415),
        ({"Origin": "https://evil.example", "Content-Type": "application/json"}, 200),
        ({"Origin": "http://localhost", "Content-Type": "text/plain"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 200),
        ({"Sec-Fetch-Site": "none", "Content-Type": "text/plain"}, 200),
        ({"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 200),
    ],
)
async def test_a_page_of_another_site_must_say_json(make_app, client_of, headers, status):
    async with client_of(make_app(cors_origins=("https://app.example",))) as client:
        reply = await client.post("/predict", content=GOOD, headers=headers)

    assert reply.status_code == status


async def test_a_byte_order_mark_is_passed_over(make_app, client_of):
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", content=b"\xef\xbb\xbf" + GOOD)

    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/no/such/path", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/predict/batch", 405),
        ("POST", "/health", 405),
        ("BREW", "/predict", 405),
        ("POST", "/predict/", 404),
        ("POST", "//predict", 404),
        ("GET", "/..%2f..%2fetc%2fpasswd", 404),
    ],
)
async def test_wrong_paths_and_methods_answer_the_same_body(make_app, client_of, method, path, status):
    async with client_of(make_app()) as client:
        reply = await client.request(method, path)

    assert reply.status_code == status
    assert_problem(reply, status)
    if status == 405:
        assert reply.headers["Allow"]
