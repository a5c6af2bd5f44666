"""Kubernetes' own apiextensions-apiserver on etcd: the machinery that serves custom resources in every cluster.

A cluster's kube-apiserver has the same code in it, and tells it who a caller is and what it may. Here a small webhook
does, by the real reviews (TokenReview, SubjectAccessReview).
"""

import http.client
import json
import ssl
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from countersign.mesh.process import Child, wait_until

from tests.cli.serving import free_port
from tests.kubernetes.small import GROUP, KINDS, TOKEN, Object

ADMIN: Final = "admin-token"
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_START: Final = 60.0  # seconds
_AUDIT: Final = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
_OFF: Final = "NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy"  # noqa: E501 (a list)


class RealApiServer:
    """A context manager: the processes run inside it. The same to tests as `SmallApiServer`."""

    scheme: Final = "https"

    def __init__(self, port: int, program: str, etcd: str, directory: Path) -> None:
        self.port = port
        self.tokens = {TOKEN}
        self.forbidden: set[str] = set()
        self._program = program
        self._etcd_program = etcd
        self._etcd_port = free_port()
        self._directory = directory
        self.ca_file = str(directory / "certificates" / "apiserver.crt")
        self._audit = directory / "audit.log"

    def __enter__(self) -> Self:
        self._webhook = _webhook(self)
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{free_port()}"
        etcd = [
            *(self._etcd_program, "--data-dir", str(self._directory / "etcd"), "--initial-cluster", f"default={peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        ]
        self._etcd = Child("etcd", etcd, directory=self._directory)
        (self._directory / "audit.yaml").write_text(json.dumps(_AUDIT))
        self._start()
        for plural, kind in KINDS.items():
            self._request("POST", _DEFINITIONS, _definition(plural, kind))
        for plural in KINDS:
            for version in ("v1", "v1beta1"):
                path = f"/apis/{GROUP}/{version}/{plural}"
                wait_until(path, partial(self._is_served, path), within=_START)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._etcd.stop()
        self._webhook.shutdown()
        self._webhook.server_close()

    def apply(self, *objects: Object) -> None:
        for each in objects:
            plural = next(plural for plural, kind in KINDS.items() if kind == each["kind"])
            path = f"/apis/{GROUP}/v1/namespaces/{each['metadata']['namespace']}/{plural}"
            one = f"{path}/{each['metadata']['name']}"
            status, before = self._answer("GET", one)
            if status == 200:
                version = before["metadata"]["resourceVersion"]
                self._request("PUT", one, {**each, "metadata": {**each["metadata"], "resourceVersion": version}})
            else:
                self._request("POST", path, each)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        plural = next(plural for plural, known in KINDS.items() if known == kind)
        self._request("DELETE", f"/apis/{GROUP}/v1/namespaces/{namespace}/{plural}/{name}")

    def forget(self) -> None:
        """Start it anew: what it remembers of the past begins now."""
        self._server.stop(grace=60.0)
        self._start()

    def asked(self) -> list[str]:
        events = [json.loads(line) for line in self._audit.read_text().splitlines()]
        ours = [event for event in events if event["user"]["username"] == "countersign"]
        return [event["requestURI"] for event in ours if event["stage"] == "RequestReceived"]

    def _start(self) -> None:
        webhook = self._directory / "webhook.kubeconfig"
        webhook.write_text(kubeconfig(f"http://127.0.0.1:{self._webhook.server_address[1]}"))
        command = [
            *(self._program, "--etcd-servers", f"http://127.0.0.1:{self._etcd_port}", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(self.port), "--cert-dir", str(Path(self.ca_file).parent)),
            *("--authentication-kubeconfig", str(webhook), "--authorization-kubeconfig", str(webhook)),
            *("--kubeconfig", str(webhook), "--authentication-skip-lookup", "--enable-priority-and-fairness=false"),
            *("--audit-log-path", str(self._audit), "--audit-policy-file", str(self._directory / "audit.yaml")),
            *("--shutdown-delay-duration", "0s", "--disable-admission-plugins", _OFF),
        ]
        self._server = Child("apiserver", command, directory=self._directory)
        wait_until("the API server", partial(self._is_served, _DEFINITIONS), within=_START, child=self._server)

    def _is_served(self, path: str) -> bool | None:
        try:
            return self._answer("GET", path)[0] == 200 or None
        except OSError:
            return None

    def _request(self, method: str, path: str, body: Object | None = None) -> None:
        status, found = self._answer(method, path, body)
        assert status < 300, found

    def _answer(self, method: str, path: str, body: Object | None = None) -> tuple[int, Any]:
        context = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        try:
            headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else text
        finally:
            connection.close()


def kubeconfig(server: str, ca_file: str = "", user: Object | None = None) -> str:
    """The text of one, with a single context."""
    cluster = {"server": server, **({"certificate-authority": ca_file} if ca_file else {})}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user or {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def _definition(plural: str, kind: str) -> Object:
    """One of our kinds, in our words: its specification is open, so that what is broken can be stored."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v1beta1")
            ],
        },
    }


def _webhook(server: RealApiServer) -> ThreadingHTTPServer:
    """Who somebody is, and what that one may. Source: the APIs authentication.k8s.io/v1 and authorization.k8s.io/v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(200, {**review, "status": self._judge(review["kind"], review["spec"])})

        def do_GET(self) -> None:  # what else a cluster has, this one has not
            self._send(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})

        def _judge(self, kind: str, spec: Object) -> Object:
            if kind == "TokenReview":
                known = spec["token"] in {ADMIN, *server.tokens}
                groups = ["system:masters"] if spec["token"] == ADMIN else ["system:authenticated"]
                user = {"username": "admin" if spec["token"] == ADMIN else "countersign", "groups": groups}
                return {"authenticated": known, **({"user": user} if known else {})}
            asked = spec.get("resourceAttributes", {})
            return {"allowed": not server.forbidden & {asked.get("verb"), asked.get("resource")}}

        def _send(self, status: int, document: Object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    threading.Thread(target=found.serve_forever, name="reviews", daemon=True).start()
    return found
