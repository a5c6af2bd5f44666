"""Who may ask over mTLS: real handshakes against a real server on a unix socket and a port."""

import socket
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from countersign.edge.addresses import Address, TcpAddress
from countersign.edge.grpc_server import GrpcServer
from countersign.edge.observed import Answered, Observe
from countersign.edge.server import Authorizer
from countersign.edge.tls.callers import Callers
from countersign.edge.tls.handshakes import Handshakes
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import METHOD
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cli.serving import free_port
from tests.edge.serving import TIMEOUT, Serving, reason, request, snapshot, status_of
from tests.edge.tls.pki import ALLOWED, ENVOY, NAME, OTHER, client_of, key_pem, new_authority, served, server_of, times
from tests.support.certificates import Issued

CA = new_authority()


@contextmanager
def serving(
    directory: Path, handshakes: Handshakes, *more: Address, observe: Observe | None = None
) -> Iterator[Serving]:
    current = snapshot()

    def make(authorizer: Authorizer, addresses: Sequence[Address]) -> GrpcServer:
        return GrpcServer(authorizer, [*addresses, *more], handshakes)

    with Serving(directory, lambda: current, make=make, observe=observe) as server:
        yield server


@pytest.fixture(scope="module")
def handshakes() -> Handshakes:
    found = Handshakes(ALLOWED)
    found.put(served(server_of(CA), CA))
    return found


@pytest.fixture
def server(tmp_path: Path, handshakes: Handshakes) -> Iterator[Serving]:
    with serving(tmp_path, handshakes) as running:
        yield running


def channel(address: Address, client: Issued | None, roots: Issued = CA) -> grpc.Channel:
    """A connection of its own."""
    key, chain = (None, None) if client is None else (key_pem(client), client.pem.encode())
    credentials = grpc.ssl_channel_credentials(roots.pem.encode(), key, chain)
    options = (("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1))
    return grpc.secure_channel(str(address), credentials, options=options)


def ask(address: Address, client: Issued | None, roots: Issued = CA, method: str = "GET") -> pb.CheckResponse:
    with channel(address, client, roots) as connection:
        call = connection.unary_unary(METHOD, bytes, bytes)
        return pb.CheckResponse.FromString(call(request(method).SerializeToString(), timeout=TIMEOUT))


def test_a_listed_caller_is_answered(server: Serving) -> None:
    envoy = client_of(CA, ENVOY)

    assert reason(ask(server.address, envoy)) == "allow-rule-matched"
    assert reason(ask(server.address, envoy, method="DELETE")) == "no-allow-rule-matched"


def dns_only(name: str) -> Issued:
    return client_of(CA, dns=[name])


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (client_of(CA, OTHER), f"{OTHER} is none of those whom --tls-allow-client lists"),
        (client_of(CA, f"{ENVOY}/x"), "is none of those"),
        (client_of(CA, "spiffe://other.domain/ns/apps/sa/envoy"), "is none of those"),
        (client_of(CA, ENVOY.upper()), "the URI SAN is no SPIFFE ID"),
        (client_of(CA, ENVOY, OTHER), "2 URI SANs"),
        (client_of(CA, OTHER, ENVOY), "2 URI SANs"),
        (dns_only(ENVOY), "0 URI SANs"),
        (client_of(CA, subject=ENVOY), "0 URI SANs"),
        (client_of(CA, names=[x509.RFC822Name("envoy@cluster.local")]), "0 URI SANs"),
        (client_of(CA, ENVOY, ca=True), "it is a CA's"),
        (client_of(CA, ENVOY, usage=("digital_signature", "key_cert_sign")), "its key may sign certificates"),
    ],
)
def test_anybody_else_with_a_certificate_gets_a_denial_that_says_why(server: Serving, client: Issued, why: str) -> None:
    """Not a gRPC error: Envoy would let the request through under failure_mode_allow."""
    response = ask(server.address, client)

    assert response.status.code != 0
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.denied_response.status.code == 503
    assert reason(response) == "caller-not-allowed"
    assert why in response.dynamic_metadata.fields["detail"].string_value


def test_each_check_of_a_refused_caller_is_told_and_numbered(tmp_path: Path, handshakes: Handshakes) -> None:
    told = list[Answered]()
    with serving(tmp_path, handshakes, observe=told.append) as server:
        responses = [ask(server.address, client_of(CA, OTHER)) for _ in range(2)]
        assert reason(ask(server.address, client_of(CA, ENVOY))) == "allow-rule-matched"

    assert [each.judged.decision.reason for each in told] == [*["caller-not-allowed"] * 2, "allow-rule-matched"]
    assert [each.dynamic_metadata.fields["decision_id"].string_value for each in responses] == [
        each.id for each in told[:2]
    ]


def test_a_refused_caller_learns_nothing_of_the_request(server: Serving) -> None:
    other = client_of(CA, OTHER)

    assert ask(server.address, other) == ask(server.address, other, method="DELETE")


@pytest.mark.parametrize(
    "client",
    [
        None,
        client_of(new_authority(), ENVOY),
        client_of(CA, ENVOY, **times(-60, -1)),
        client_of(CA, ENVOY, **times(30, 60)),
    ],
    ids=["none", "of another CA", "expired", "not valid yet"],
)
def test_without_a_certificate_of_the_client_ca_there_is_no_connection(server: Serving, client: Issued | None) -> None:
    assert reason(ask(server.address, client_of(CA, ENVOY))) == "allow-rule-matched"
    with pytest.raises(grpc.RpcError) as error:
        ask(server.address, client)

    assert status_of(error.value) == "UNAVAILABLE"


def test_plaintext_is_no_connection(server: Serving) -> None:
    with pytest.raises(grpc.RpcError) as error:
        server.check(request())

    assert status_of(error.value) == "UNAVAILABLE"


def test_health_answers_whoever_has_a_certificate(server: Serving) -> None:
    """It says nothing of policies, and whoever probes need not be listed."""
    with channel(server.address, client_of(CA, OTHER)) as connection:
        answer = health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def handshake(port: int, certificate: Path, version: ssl.TLSVersion) -> str:
    """The version that a listed client gets who speaks this one only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # else it is this client that refuses
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of old versions, which is the point
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as plain, context.wrap_socket(plain) as secure:
        return str(secure.version())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    client = client_of(CA, ENVOY)
    file = tmp_path / "client.pem"
    file.write_bytes(client.pem.encode() + key_pem(client))
    return file


@pytest.fixture
def port(tmp_path: Path, handshakes: Handshakes) -> Iterator[int]:
    address = TcpAddress("127.0.0.1", free_port())
    with serving(tmp_path, handshakes, address):
        yield address.port


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_less_than_tls_1_2_is_refused_by_the_server(port: int, certificate: Path, version: ssl.TLSVersion) -> None:
    with pytest.raises(OSError, match=r"EOF|reset"):  # this client, if it refused, would name the protocol
        handshake(port, certificate, version)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(port: int, certificate: Path, version: ssl.TLSVersion) -> None:
    assert handshake(port, certificate, version) == version.name.replace("_", ".")


def test_a_refusal_is_reported_once_for_a_certificate() -> None:
    said: list[str] = []
    callers = Callers(ALLOWED, said.append)
    other, envoy = ({"x509_pem_cert": [client_of(CA, uri).pem.encode()]} for uri in (OTHER, ENVOY))

    assert callers.refusal(other) == callers.refusal(other) is not None
    assert callers.refusal(envoy) is None
    assert said == [f"{OTHER} is none of those whom --tls-allow-client lists"]


@pytest.mark.parametrize("proven", [{}, {"x509_pem_cert": [b"junk"]}, {"x509_common_name": [ENVOY.encode()]}])
def test_a_connection_without_a_readable_certificate_is_refused(proven: dict[str, list[bytes]]) -> None:
    denial = Callers(ALLOWED, lambda _: None).refusal(proven)

    assert denial is not None
    assert denial.reason == "caller-not-allowed"
