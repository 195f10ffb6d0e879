"""Who may change the server, what an order answers, and what is remembered of it."""

from __future__ import annotations

import asyncio
import re
import shutil

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.fleet import transaction
from fitserve.fleet.operations import WorkerState, new_operation

pytestmark = pytest.mark.anyio

ROW = {"features": [1.0, 2.0]}


@pytest.fixture
def path(tmp_path, models):
    path = tmp_path / "iris_v1.0.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    return path


@pytest.fixture
def make_file_app(make_app, path, tmp_path):
    """Build an application that serves the one file."""

    def make(**settings):
        return make_app(path, **{"state_dir": tmp_path / "state", "cache_dir": tmp_path / "cache", **settings})

    return make


async def over(client, place):
    """The operation at a place, once it is over."""
    async with asyncio.timeout(60):
        while True:
            operation = (await client.get(place)).json()
            if operation["state"] in {"done", "failed"}:
                return operation
            await asyncio.sleep(0.01)


async def test_a_new_file_serves_after_a_reload(make_file_app, client_of, path):
    async with client_of(make_file_app()) as client:
        unchanged = await client.post("/model/reload?wait=true")
        joblib.dump(LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"]), path)
        reload = await client.post("/model/reload?wait=true")
        predict = await client.post("/predict", json={"features": [8, 8, 8, 8]})
        schema = await client.get("/openapi.json")

    assert (unchanged.status_code, unchanged.json()["status"]) == (200, "unchanged")
    assert (reload.status_code, reload.json()["status"]) == (200, "reloaded")
    assert reload.json()["previous_version"] == "1.0"
    assert re.fullmatch(r"1\.0\+[0-9a-f]{8}", reload.json()["model_version"])
    assert reload.headers["X-Model-Version"] == predict.headers["X-Model-Version"] == reload.json()["model_version"]
    assert predict.json()["prediction"] == "high"
    assert '"enum":["high","low"]' in schema.text, "the document is that of the version that serves"


async def test_a_file_that_cannot_be_served_is_told_and_the_old_one_goes_on(make_file_app, client_of, path):
    async with client_of(make_file_app()) as client:
        path.write_bytes(b"broken")
        reload = await client.post("/model/reload?wait=true")
        begun = await client.post("/model/reload")
        later = await over(client, begun.headers["Location"])
        predict = await client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})

    assert reload.status_code == 422
    assert "damaged" in reload.json()["error"]
    assert str(path.parent) not in reload.text
    assert (reload.json()["operation"]["state"], reload.json()["operation"]["kind"]) == ("failed", "reload")
    assert (begun.status_code, later["state"]) == (202, "failed")
    assert "damaged" in later["error"]
    assert predict.json()["prediction"] == 0


@pytest.mark.parametrize(
    ("client_address", "headers", "is_allowed"),
    [
        (("127.0.0.1", 1), {}, True),
        (("::1", 1), {}, True),
        (("10.1.2.3", 1), {}, False),
        (("192.168.0.2", 1), {"X-Forwarded-For": "127.0.0.1"}, False),
        (("127.0.0.1", 1), {"Sec-Fetch-Site": "cross-site"}, False),
        (("127.0.0.1", 1), {"Origin": "https://evil.example"}, False),
        (("127.0.0.1", 1), {"Host": "rebound.evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        (
            ("127.0.0.1", 1),
            {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
            True,
        ),
        (("127.0.0.1", 1), {"Host": "[::1]:8000"}, True),
    ],
)
async def test_only_this_machine_may_change_and_see_changes(
    make_file_app, client_of, client_address, headers, is_allowed
):
    app = make_file_app(cors_origins=("https://evil.example",))
    refused, replies = set(), {}
    async with client_of(app, client=client_address) as client:
        for method, path, body in [
            ("POST", "/model/promote", {"version": "1.0"}),
            ("POST", "/models/iris/promote", {"version": "1.0"}),
            ("POST", "/model/rollback?wait=true", None),
            ("POST", "/models/iris/rollback?wait=true", None),
            ("PUT", "/models/iris/aliases/a?wait=true", {"version": "1.0"}),
            ("DELETE", "/models/iris/aliases/a?wait=true", None),
            ("GET", "/models/iris/history", None),
            ("GET", "/operations", None),
            ("GET", "/operations/op-1", None),
            ("POST", "/models/iris/reload?wait=true", None),
            ("POST", "/model/reload?wait=true", None),
        ]:
            replies[path] = await client.request(method, path, headers=headers, json=body)
            if replies[path].status_code == 403:
                refused.add(path)

    assert refused == (set() if is_allowed else set(replies))
    assert all(reply.status_code < 500 for reply in replies.values())


async def test_a_connection_through_a_public_address_may_not_reload(make_file_app):
    app = make_file_app()
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    await app(
        {
            "type": "http",
            "method": "POST",
            "path": "/model/reload",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("10.0.0.5", 80),
        },
        receive,
        send,
    )

    assert sent[0]["status"] == 403


async def test_an_order_begins_an_operation_that_can_be_followed(make_repository_app, client_of):
    async with client_of(make_repository_app(root_path="/ml")) as client:
        begun = await client.post("/models/price/promote", json={"version": "1.0.0", "reason": "it is cheaper"})
        ended = await over(client, begun.headers["Location"])
        listed = (await client.get("/operations")).json()["operations"]
        predict = await client.post("/predict", json=ROW)

    assert begun.status_code == 202
    assert begun.headers["Location"] == f"/ml/operations/{begun.json()['id']}"
    assert ended["state"] == "done"
    assert (ended["from"], ended["to"], ended["reason"], ended["who"]) == (
        "2.0.0",
        "1.0.0",
        "it is cheaper",
        "127.0.0.1",
    )
    assert [worker["state"] for worker in ended["workers"]] == ["committed"]
    assert [operation["id"] for operation in listed] == [ended["id"]]
    assert predict.json()["prediction"] == 1.0


async def test_a_promotion_is_rolled_back_and_the_history_tells_of_both(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        promoted = await client.post("/model/promote?wait=true", json={"version": "1.10.0", "reason": "a"})
        rolled_back = await client.post("/models/price/rollback?wait=true", json={"reason": "b"})
        predict = await client.post("/predict", json=ROW)
        history = (await client.get("/models/price/history")).json()
        last = (await client.get("/models/price/history?limit=1")).json()

    assert promoted.status_code == rolled_back.status_code == 200
    assert (promoted.headers["X-Model-Version"], rolled_back.headers["X-Model-Version"]) == ("1.10.0", "2.0.0")
    assert predict.json()["model_version"] == "2.0.0"
    told = [(change["action"], change["from"], change["to"], change["reason"]) for change in history["changes"]]
    assert told[:2] == [("rollback", "1.10.0", "2.0.0", "b"), ("promote", "2.0.0", "1.10.0", "a")]
    assert history["model"] == "price"
    assert last["changes"] == history["changes"][:1]


async def test_a_switch_does_not_wait_for_the_caller_that_waits_for_it(make_repository_app, client_of, monkeypatch):
    monkeypatch.setattr(transaction, "LAST_REPLIES_S", 3600)
    async with asyncio.timeout(120), client_of(make_repository_app()) as client:
        replies = [
            await client.post(f"{path}?wait=true", json={"version": version})
            for path in ("/model/promote", "/models/price/promote")
            for version in ("1.10.0", "2.0.0")
        ]

    assert [reply.json()["state"] for reply in replies] == ["done"] * 4


async def test_promoting_what_serves_changes_nothing(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        reply = await client.post("/models/price/promote", json={"version": "2.0.0"})

    assert reply.status_code == 200
    assert (reply.json()["state"], reply.json()["status"]) == ("done", "unchanged")


async def test_an_alias_is_set_moved_followed_and_removed(make_repository_app, client_of):
    place = "/models/price/aliases/champion"
    async with client_of(make_repository_app()) as client:
        await client.put(f"{place}?wait=true", json={"version": "1.0.0"})
        moved = await client.put(f"{place}?wait=true", json={"version": "1.10.0"})
        promoted = await client.post("/models/price/promote?wait=true", json={"version": "@champion"})
        removed = await client.delete(f"{place}?wait=true")
        again = await client.delete(f"{place}?wait=true")
        predict = await client.post("/models/price@champion/predict", json=ROW)

    assert (moved.json()["alias"], moved.json()["from"], moved.json()["to"]) == ("champion", "1.0.0", "1.10.0")
    assert promoted.json()["to"] == "1.10.0"
    assert (removed.json()["from"], removed.json()["to"]) == ("1.10.0", None)
    assert again.status_code in {200, 404}
    assert predict.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/models/prise/promote", {"version": "1.0.0"}, 404, "did you mean 'price'?"),
        ("POST", "/models/price/promote?wait=true", {"version": "9"}, 404, "'9'"),
        ("POST", "/models/price/promote", {"version": "@nope"}, 404, "no alias '@nope'"),
        ("PUT", "/models/price/aliases/a?wait=true", {"version": "9"}, 404, "'9'"),
        ("PUT", "/models/price/aliases/a%20b?wait=true", {"version": "1.0.0"}, 422, "alias"),
        ("DELETE", "/models/price/aliases/a%20b", None, 422, "alias"),
        ("GET", "/models/prise/history", None, 404, "did you mean 'price'?"),
        ("GET", "/operations/op-1", None, 404, "no such operation"),
        ("POST", "/models/price/promote", None, 400, "empty"),
        ("POST", "/models/price/promote", {}, 422, "the member 'version'"),
        ("POST", "/models/price/promote", {"versoin": "1.0.0"}, 422, "did you mean 'version'?"),
        ("POST", "/models/price/promote", {"version": 1}, 422, "a string in 'version'"),
        ("POST", "/models/price/promote", {"version": ""}, 422, "characters in 'version'"),
        ("POST", "/models/price/promote", {"version": None}, 422, "a string in 'version'"),
        ("POST", "/models/price/rollback", {"reason": "x" * 501}, 422, "up to 500 characters"),
        ("POST", "/models/price/rollback", ["reason"], 422, "an object"),
        ("POST", "/models/price/reload?wiat=true", None, 422, "did you mean 'wait'?"),
        ("POST", "/models/price/reload?wait=yes", None, 422, "wait=true or wait=false"),
        ("POST", "/models/price/reload?wait=true&wait=true", None, 422, "once"),
        ("GET", "/models/price/history?limit=0", None, 422, "limit=1"),
        ("GET", "/models/price/history?limit=²", None, 422, "limit=1"),
    ],
)
async def test_a_wrong_order_is_told_what_is_wrong(make_repository_app, client_of, method, path, body, status, said):
    async with client_of(make_repository_app()) as client:
        reply = await client.request(method, path, json=body)

    assert (reply.status_code, said in reply.json()["detail"]) == (status, True), reply.text


class HeldSwitch:
    """In the place of the switch: one operation, which does not end before the test says so."""

    def __init__(self, operation):
        self.operation = operation

    async def begin(self, *_, **__):
        return self.operation

    async def wait(self, id_, timeout_s):
        assert (id_, timeout_s) == (self.operation.id, 62.0)
        return self.operation


async def test_a_caller_who_has_waited_long_enough_is_told_that_it_goes_on(make_app, client_of, monkeypatch):
    app = make_app(load_timeout_s=1.0)
    workers = tuple(WorkerState(pid, "loading", "x" * 100) for pid in range(250))
    held = HeldSwitch(new_operation("reload", "iris", state="preparing", workers=workers))
    object.__setattr__(app.services, "switch", held)
    async with client_of(app) as client:
        reply = await client.post("/model/reload?wait=true")

    assert reply.status_code == 504
    assert reply.json()["operation"]["id"] == held.operation.id
    assert len(reply.content) <= 8192


async def test_a_model_that_was_handed_over_in_memory_cannot_be_reloaded(make_app, client_of):
    async with client_of(make_app(LogisticRegression().fit([[0], [1]], [0, 1]))) as client:
        reply = await client.post("/model/reload")

    assert reply.status_code == 409
    assert "in memory" in reply.json()["detail"]
