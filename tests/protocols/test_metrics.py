"""The scrape."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from fitserve.observe.definitions import METRICS
from fitserve.protocols.metrics import prefers_openmetrics

pytestmark = pytest.mark.anyio

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


async def test_a_scrape_is_text_that_prometheus_reads(make_app, client_of):
    app = make_app()
    app.services.metrics.rejected("invalid-input")
    async with client_of(app) as client:
        reply = await client.get("/metrics", headers={"Accept": "*/*"})

    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.headers["Vary"] == "accept"
    families = {family.name: family for family in parser.text_string_to_metric_families(reply.text)}
    assert len(families) == len(METRICS)
    assert families["fitserve_rejections"].samples[0].value == 1


async def test_a_scrape_is_openmetrics_for_whoever_asks_for_it(make_app, client_of):
    async with client_of(make_app()) as client:
        reply = await client.get("/metrics", headers={"Accept": PROMETHEUS_3})

    assert reply.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert len(list(openmetrics_parser.text_string_to_metric_families(reply.text))) == len(METRICS)


async def test_one_process_alone_counts_in_memory(make_app):
    app = make_app()
    app.services.metrics.in_flight(1)

    assert app.services.metrics._folder is None


async def test_a_server_without_a_model_can_be_scraped(client_of, app_without_model):
    async with client_of(app_without_model) as client:
        reply = await client.get("/metrics")

    assert reply.status_code == 200
    assert "fitserve_model_info{" not in reply.text


async def test_a_reload_is_seen(make_app, client_of):
    app = make_app()
    async with client_of(app) as client:
        before = (await client.get("/metrics")).text
        app.services.catalog.switch(make_app("diabetes.joblib").services.catalog.current)
        after = (await client.get("/metrics")).text

    def models(text: str) -> list[str]:
        return re.findall(r'fitserve_model_info{.*model="(\w+)"', text)

    assert (models(before), models(after)) == (["iris"], ["diabetes"])


async def test_requests_are_counted_by_routes_of_ours_whatever_is_asked(make_app, client_of):
    app = make_app()
    parent = FastAPI()
    parent.mount("/ml/{tenant}", app)
    async with client_of(app) as direct, client_of(parent) as mounted:
        for client, prefix in ((direct, ""), (mounted, "/ml/a"), (mounted, "/ml/b")):
            await client.post(f"{prefix}/predict", json={"features": [1, 2, 3, 4]})
            await client.post(f"{prefix}/predict", json={})
            await client.get(f"{prefix}/predict")
            await client.get(f"{prefix}/x/predict")
            await client.get(f"{prefix}/docs")
        text = (await direct.get("/metrics")).text

    samples = [s for f in parser.text_string_to_metric_families(text) for s in f.samples]
    counted = {(s.labels["route"], s.labels["status"]): s.value for s in samples if s.name == "fitserve_requests_total"}
    assert counted == {
        ("/predict", "200"): 3,
        ("/predict", "422"): 3,
        ("/predict", "405"): 3,
        ("other", "404"): 3,
        ("other", "200"): 3,
    }
    assert {s.value for s in samples if s.name == "fitserve_in_flight"} == {1}


async def test_the_head_of_a_scrape_may_be_asked_for(make_app, client_of):
    async with client_of(make_app()) as client:
        reply = await client.head("/metrics")

    assert reply.status_code == 200
    assert int(reply.headers["Content-Length"]) > 0


async def test_a_scrape_does_not_wait_behind_predictions(make_app, client_of, monkeypatch):
    app = make_app()

    async def never(call):
        raise AssertionError(call)

    monkeypatch.setattr(app.services.executor, "run", never)
    async with client_of(app) as client:
        assert (await client.get("/metrics")).status_code == 200


async def test_both_formats_are_in_the_document(make_app, client_of):
    async with client_of(make_app()) as client:
        document = (await client.get("/openapi.json")).json()

    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"text/plain", "application/openmetrics-text"}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.1,text/plain", False),
        ("application/openmetrics-text;q=nan", False),
        ("application/openmetrics-text;q=1e9,text/plain;q=0.5", False),
        ("application/openmetrics-text;q;=;;,,", True),
    ],
)
async def test_openmetrics_is_given_where_it_is_liked_best(accept, expected):
    assert prefers_openmetrics(accept.encode()) is expected


async def test_requests_phases_and_refusals_are_counted_by_what_they_were(make_app, client_of):
    async with client_of(make_app()) as client:
        for features in ([5.1, 3.5, 1.4, 0.2], [5.1, 3.5, 1.4], "none"):
            await client.post("/predict", json={"features": features})
        await client.post("/predict/batch", json={"instances": [[5.1, 3.5, 1.4, 0.2]] * 7})
        await client.get("/nothing/here")
        text = (await client.get("/metrics")).text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    version = (("model", "iris"), ("version", "1.2.3"))

    def requests(route, status):
        return samples["fitserve_requests_total", (version[0], ("route", route), ("status", status), version[1])]

    assert requests("/predict", "200") == 1
    assert requests("/predict", "422") == 2
    assert requests("/predict/batch", "200") == 1
    assert requests("other", "404") == 1
    assert samples["fitserve_rejections_total", (("reason", "invalid-input"),)] == 2
    assert samples["fitserve_rejections_total", (("reason", "not-found"),)] == 1
    assert samples["fitserve_rows_total", version] == 8
    for phase in ("decode", "queue", "predict", "encode"):
        assert samples["fitserve_phase_seconds_count", (version[0], ("phase", phase), version[1])] == 2
