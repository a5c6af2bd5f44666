"""`POST /explain` with the fields of a request: the same as `countersign explain` with the flags of that name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.policy.parse import parse
from countersign.policy.scope import PolicySet
from countersign.snapshot import Mesh, Snapshot

from tests.admin.asking import JSON, api, ask
from tests.cli.explaining import Explain
from tests.edge.tls.pki import ENVOY, client_of, new_authority

SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
TOKEN: Final = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
POLICIES: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: apps}
spec:
  selector: {matchLabels: {app: httpbin}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/sleep], ipBlocks: [10.0.0.0/8]}}]
    to: [{operation: {methods: [GET], hosts: [httpbin], ports: ["8080"]}}]
    when: [{key: "request.headers[x-tier]", values: [gold]}]
  - from: [{source: {principals: [cluster.local/ns/apps/sa/envoy]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shop, namespace: shop}
spec:
  rules: [{to: [{operation: {ports: ["9000"]}}]}]
"""
FIELDS: Final[dict[str, Any]] = {
    "method": "GET",
    "path": "/headers",
    "as": SLEEP,
    "to": "apps/httpbin",
    "host": "httpbin",
    "header": ["x-tier: gold"],
    "port": 8080,
    "source-ip": "10.1.2.3",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    mesh = Mesh()
    resources = parse({"p.yaml": POLICIES}, None, lambda _: "").resources
    current = Snapshot(mesh=mesh, policies=PolicySet(resources, mesh.root_namespace, 1), keys={})
    with api(lambda: current) as admin:
        yield admin.port


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(capsys)


def post(port: int, fields: Any) -> tuple[int, Any]:
    answer = ask(port, "/explain", "POST", json.dumps(fields), content_type=JSON)
    return answer.status, answer.json


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**FIELDS, **more}.items() if name not in names}


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS,
        without("as"),
        without("header"),
        without(port=80),
        without(**{"source-ip": "::1"}),
        without(method="POST"),
        without("to"),
        without("to", context=["workload.namespace=apps", "workload.labels=app=httpbin"]),
        without(token="a.b.c"),
        {"tcp": True, "to": "shop/a", "source-ip": "10.1.2.3", "destination-ip": "10.1.2.4", "port": 9000, "sni": "a"},
    ],
)
def test_fields_say_what_the_flags_say(port: int, explain: Explain, tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "p.yaml").write_text(POLICIES)
    words = [str(fields[name]) for name in ("method", "path") if name in fields]
    for name, value in fields.items():
        if name not in {"method", "path", "tcp"}:
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(each)]
    flags = explain("--policies", str(tmp_path / "p.yaml"), *words, *["--tcp"] * ("tcp" in fields), "-o", "json").json

    status, found = post(port, fields)

    assert status == 200
    named = str(tmp_path / "p.yaml")
    assert json.loads(json.dumps(flags).replace(named, "p.yaml")) == found


def test_what_is_described_is_decided_and_each_word_counts(port: int) -> None:
    assert post(port, FIELDS)[1]["decision"] == "ALLOW"
    for changed in (without("as"), without("header"), without("host"), without(port=80), without("source-ip")):
        assert post(port, changed)[1]["decision"] == "DENY"


def test_a_certificate_is_given_as_it_is(port: int) -> None:
    pem = client_of(new_authority(), ENVOY).pem
    assert post(port, without("as", certificate=pem))[1]["decision"] == "ALLOW"
    assert post(port, without("as", certificate=pem[:200]))[0] == 400


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "`method`: is missing: wants method and path, or a CheckRequest with `attributes`"),
        ({"method": "GET"}, "`path`: is missing"),
        ({"method": "G ET", "path": "/"}, "`G ET` is no HTTP method"),
        ({"method": "GET", "path": "x"}, "`x` is no path"),
        (without("path", pth="/"), "`pth`: no such field; did you mean `path`"),
        (without(headers=["a: b"]), "`headers`: no such field; did you mean `header`"),
        ({"atributes": {}}, "`atributes`: no such field; did you mean `attributes`"),
        (without(request="x.json"), "`request`: no such field"),
        (without(claims="{}"), "`claims`: no such field"),
        (without(header="a: b"), "`header`: wants an array of texts"),
        (without(header=["a: b", 1]), "`header`: wants an array of texts"),
        (without(header=["a"]), "`header`: wants 'NAME: VALUE'"),
        (without(header=["x: a\nb"]), "`header`: a control character in the value"),
        (without(port="8080"), "`port`: wants a number"),
        (without(port=True), "`port`: wants a number"),
        (without(port=65536), "`port`: `65536` is no port"),
        (without(port=-1), "`port`: `-1` is no port"),
        (without(port=10**18), "`port`: `1000000000000000000` is no port"),
        (without(tcp=1), "`tcp`: wants true or false"),
        (without(tcp=True), "`host`: --tcp is a connection without HTTP"),
        ({"tcp": True}, "`tcp`: say both ends"),
        (without(host=None), "`host`: wants a text"),
        (without(**{"source-ip": "10.0.0"}), "`source-ip`: `10.0.0` is no IP address"),
        (without(**{"as": "sleep"}), "`as`: not of the form spiffe://"),
        (without(to="apps"), "`to`: wants NS/APP"),
        (without(context=["x"]), "`context`: wants K=V"),
        (without(certificate="/etc/passwd"), "`certificate`: "),
        (without(token="x", header=["authorization: y"]), "`token`: there is an authorization header already"),
    ],
)
def test_a_mistake_names_its_field(port: int, fields: dict[str, Any], why: str) -> None:
    status, answer = post(port, fields)
    assert status == 400
    assert answer["error"].startswith(why)
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    "fields",
    [
        without(token=TOKEN),
        without(header=[f"authorization: Bearer {TOKEN}"]),
        without(header=[TOKEN]),
        without(header=["authorization: s3cret", "x"]),
        without(path=f"/?access_token={TOKEN}"),
        without(path=TOKEN),
        without(method=TOKEN),
        without(to=TOKEN),
        without(context=[TOKEN]),
        {TOKEN: "x"},
    ],
)
def test_no_token_comes_back(port: int, fields: dict[str, Any]) -> None:
    text = ask(port, "/explain", "POST", json.dumps(fields), content_type=JSON).text
    assert json.loads(text)
    for part in ("eyJzdWIi", "c2lnbmF0dXJl", "s3cret"):
        assert part not in text


def test_a_token_is_not_read_from_a_file(port: int, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-the-file")
    status, answer = post(port, without(token=f"@{tmp_path}/token"))
    assert status == 200
    assert "from-the-file" not in json.dumps(answer)
