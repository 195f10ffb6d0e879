"""A server that speaks S3, from moto, and the environment in which ours finds it."""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "anna",
    "AWS_SECRET_ACCESS_KEY": "5ecret",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3() -> Iterator[tuple[Any, dict[str, str]]]:
    """A client of boto3 for a server with a bucket ``models``, and the environment that names the server."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="anna", aws_secret_access_key="5ecret", region_name="eu-west-1"
        )
        urllib.request.urlopen(f"{url}/moto-api/reset", data=b"").close()  # all of its servers are one
        client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client, {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}
        client.close()
    finally:
        server.stop()


def environment(**given: str) -> dict[str, str]:
    """This process's environment without credentials of anybody, and with what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
    return {**kept, **given}
