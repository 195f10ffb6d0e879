"""Who may reload, and what a reload answers."""

from __future__ import annotations

import shutil

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path, models):
    path = tmp_path / "iris_v1.0.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    return path


async def test_a_new_file_serves_after_a_reload(make_app, client_of, path):
    async with client_of(make_app(path)) as client:
        unchanged = await client.post("/model/reload")
        joblib.dump(LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"]), path)
        reload = await client.post("/model/reload")
        predict = await client.post("/predict", json={"features": [8, 8, 8, 8]})
        schema = await client.get("/openapi.json")

    assert (unchanged.status_code, unchanged.json()["status"]) == (200, "unchanged")
    assert (reload.status_code, reload.json()["status"]) == (200, "reloaded")
    assert reload.json()["digest"] != unchanged.json()["digest"]
    assert predict.json()["prediction"] == "high"
    assert '"enum":["high","low"]' in schema.text, "the document is that of the version that serves"


async def test_a_file_that_cannot_be_served_is_told_and_the_old_one_goes_on(make_app, client_of, path):
    async with client_of(make_app(path)) as client:
        path.write_bytes(b"broken")
        reload = await client.post("/model/reload")
        predict = await client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})

    assert reload.status_code == 422
    assert "damaged" in reload.json()["error"]
    assert str(path.parent) not in reload.text
    assert predict.json()["prediction"] == 0


@pytest.mark.parametrize(
    ("client_address", "headers", "status"),
    [
        (("127.0.0.1", 1), {}, 200),
        (("::1", 1), {}, 200),
        (("10.1.2.3", 1), {}, 403),
        (("192.168.0.2", 1), {"X-Forwarded-For": "127.0.0.1"}, 403),
        (("127.0.0.1", 1), {"Sec-Fetch-Site": "cross-site"}, 403),
        (("127.0.0.1", 1), {"Origin": "https://evil.example"}, 403),
        (("127.0.0.1", 1), {"Host": "rebound.evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        (
            ("127.0.0.1", 1),
            {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
            200,
        ),
        (("127.0.0.1", 1), {"Host": "[::1]:8000"}, 200),
    ],
)
async def test_only_this_machine_may_reload(make_app, client_of, path, client_address, headers, status):
    async with client_of(make_app(path, cors_origins=("https://evil.example",)), client=client_address) as client:
        reply = await client.post("/model/reload", headers=headers)

    assert reply.status_code == status, reply.text


async def test_a_connection_through_a_public_address_may_not_reload(make_app, path):
    app = make_app(path)
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
