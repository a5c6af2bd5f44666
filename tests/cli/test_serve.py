"""`countersign serve`: its flags, its reloads, its end."""

import json
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from countersign.edge.addresses import UnixAddress
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import wait_until
from countersign.wire.codec import METHOD, SERVICE

from tests.cli.serving import Serve, free_port
from tests.edge.frames import GOAWAY, Peer, frame
from tests.edge.serving import READERS, call, health, reason, request, status_of

NOBODY = READERS.replace("sa/sleep", "sa/nobody")
BROKEN = READERS.replace("principals", "principal")


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "p.yaml").write_text(READERS)
    return directory


def decide(serve: Serve, method: str = "GET") -> str:
    return reason(call(serve.address, request(method).SerializeToString()))


def becomes(serve: Serve, expected: str) -> bool:
    return wait_until(f"deciding {expected}", lambda: decide(serve) == expected or None, within=10, child=serve.child)


def countersign(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_decides_and_says_that_it_is_ready(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert decide(serve) == "allow-rule-matched"
        assert decide(serve, method="POST") == "no-allow-rule-matched"
        assert serve.ready() == "ok"
        assert [health(serve.address, name) for name in ("", SERVICE)] == ["SERVING", "SERVING"]


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ((), "native: a unix socket"),
        (("--transport", "native"), "native: asked for"),
        (("--transport", "grpcio"), "grpcio: asked for"),
    ],
)
def test_the_transport_is_chosen_and_logged(
    tmp_path: Path, policies: Path, flags: tuple[str, ...], chosen: str
) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps", *flags) as serve:
        assert decide(serve) == "allow-rule-matched"
        assert f"{serve.address} is served by {chosen}\n" in serve.log
        assert serve.child.stop() == 0


def test_a_transport_that_cannot_serve_an_address_is_a_usage_error(policies: Path) -> None:
    flags = ("--listen", "0.0.0.0:9191", "--insecure-listen", "--probes", f"127.0.0.1:{free_port()}")
    refused = countersign("serve", "--policies", str(policies), "--transport", "native", *flags)

    assert refused.returncode == 2
    assert refused.stderr.endswith(
        "countersign serve: --transport native cannot serve 0.0.0.0:9191: "
        "pygrpc-native is for a unix socket or loopback; say auto or grpcio\n"
    )


def test_whoever_hears_that_it_is_ready_can_call_at_once(tmp_path: Path, policies: Path) -> None:
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        with Serve(directory, policies, "--namespace", "apps") as serve:  # it waits for the probes alone
            assert decide(serve) == "allow-rule-matched"


WITH_KEYS = (
    READERS
    + """\
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwksUri: "%s"}]
"""
)


def test_it_is_ready_once_the_keys_have_been_asked_for(tmp_path: Path, policies: Path) -> None:
    with IssuerServer(Issuer("https://issuer.test")) as issuer:
        issuer.delay = 1.0
        (policies / "p.yaml").write_text(WITH_KEYS % issuer.jwks_uri)
        with Serve(tmp_path, policies, "--namespace", "apps") as serve:
            assert serve.ready() == f"fetching keys from {issuer.jwks_uri}"
            assert health(serve.address) == "NOT_SERVING"
            assert wait_until("having asked", lambda: serve.ready() == "ok" or None, within=10)
            assert issuer.fetches == 1
            assert wait_until("serving", lambda: health(serve.address) == "SERVING" or None, within=5)


def test_it_is_ready_without_the_keys_of_an_issuer_that_is_down(tmp_path: Path, policies: Path) -> None:
    (policies / "p.yaml").write_text(WITH_KEYS % f"http://127.0.0.1:{free_port()}/jwks.json")
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert wait_until("having asked", lambda: serve.ready() == "ok" or None, within=10)
        assert decide(serve) == "allow-rule-matched"


def test_a_policy_that_changes_is_in_force_without_a_restart(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert decide(serve) == "allow-rule-matched"
        (policies / "p.yaml").write_text(NOBODY)
        assert becomes(serve, "no-allow-rule-matched")
        (policies / "p.yaml").write_text(READERS)
        assert becomes(serve, "allow-rule-matched")


def test_a_config_map_swap_is_in_force_without_a_restart(tmp_path: Path) -> None:
    policies = tmp_path / "mounted"
    policies.mkdir()

    def swap(version: str, text: str) -> None:
        (policies / version).mkdir()
        (policies / version / "p.yaml").write_text(text)
        (policies / "..data_tmp").symlink_to(version)
        (policies / "..data_tmp").rename(policies / "..data")

    swap("..1", READERS)
    (policies / "p.yaml").symlink_to("..data/p.yaml")
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert decide(serve) == "allow-rule-matched"
        swap("..2", NOBODY)
        assert becomes(serve, "no-allow-rule-matched")


def test_a_broken_file_leaves_the_last_good_set_in_force_and_says_where(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        (policies / "another.yaml").write_text(NOBODY.replace("name: readers", "name: nobody"))
        (policies / "p.yaml").write_text(BROKEN)
        serve.wait_for_log("the last good set stays in force")
        assert f"{policies / 'p.yaml'}:6:22: error[CS0003]: unknown field `principal` in `source`" in serve.log
        assert decide(serve) == "allow-rule-matched"
        assert serve.ready() == "ok"
        (policies / "p.yaml").unlink()
        assert becomes(serve, "no-allow-rule-matched")


@pytest.mark.parametrize("name", ["x" * 300, "caf\udce9"])
def test_a_name_that_cannot_be_read_leaves_the_last_good_set_in_force(
    tmp_path: Path, policies: Path, name: str
) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        if name.isascii():
            (policies / "q.yaml").symlink_to(name)
        else:
            (policies / f"{name}.yaml").write_text(NOBODY)
        serve.wait_for_log("the last good set stays in force")
        assert decide(serve) == "allow-rule-matched"
        assert "Traceback" not in serve.log


def test_a_name_that_is_not_utf_8_beside_the_policies_hides_no_later_change(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        (policies / "caf\udce9.yaml~").write_text(NOBODY)
        serve.wait_for_log("cannot watch the policy directories, looking again")
        assert decide(serve) == "allow-rule-matched"
        (policies / "p.yaml").write_text(NOBODY)
        assert becomes(serve, "no-allow-rule-matched")


def test_what_loads_and_does_not_do_what_it_says_is_told_and_served(tmp_path: Path, policies: Path) -> None:
    odd = READERS.replace("methods: [GET]", "methods: [GET], paths: ['/*/headers', /headers]")
    (policies / "p.yaml").write_text(odd)
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        serve.wait_for_log("p.yaml:7:47: warning[CS0101]: `/*/headers` in `paths`")
        assert decide(serve) == "allow-rule-matched"


def test_the_last_good_set_outlives_the_loss_of_every_policy(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        (policies / "p.yaml").unlink()
        serve.wait_for_log("found no policy in")
        assert decide(serve) == "allow-rule-matched"
        assert decide(serve, method="POST") == "no-allow-rule-matched"


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_what_a_peer_says_in_its_frames_is_not_in_the_log(tmp_path: Path, policies: Path, transport: str) -> None:
    """Whoever may connect could write lines there otherwise, of whatever it likes."""
    said = struct.pack(">II", 0, 2) + b"bye\n2026-11-22 INFO countersign.app: made up\n"
    with Serve(tmp_path, policies, "--namespace", "apps", "--transport", transport) as serve:
        with Peer(serve.address) as peer:
            peer.send(frame(GOAWAY, 0, 0, said))
            with suppress(EOFError, ConnectionResetError):  # it has gone, too
                peer.ping()
        assert decide(serve) == "allow-rule-matched"
        assert "listening on" in serve.log
        assert "made up" not in serve.log


def test_without_any_policy_nothing_is_allowed_until_one_comes(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert decide(serve) == "no-policies-loaded"
        assert serve.ready() == "no policy has been loaded"
        assert health(serve.address) == "NOT_SERVING"
        (policies / "p.yaml").write_text(READERS)
        assert becomes(serve, "allow-rule-matched")
        assert wait_until("serving", lambda: health(serve.address) == "SERVING" or None, within=5)


def test_sigterm_lets_a_running_check_end_and_exits_with_0(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        said: list[str] = []
        done = threading.Event()

        def keep_asking() -> None:
            with grpc.insecure_channel(str(serve.address)) as channel:
                while not done.is_set():
                    try:
                        channel.unary_unary(METHOD, bytes, bytes)(request().SerializeToString(), timeout=5)
                        said.append("OK")
                    except grpc.RpcError as error:
                        said.append(status_of(error))
                        return

        asking = threading.Thread(target=keep_asking)
        asking.start()
        wait_until("asking", lambda: len(said) > 20 or None, within=10)
        started = time.monotonic()
        code = serve.child.stop()
        done.set()
        asking.join()

    assert code == 0
    assert time.monotonic() - started < 5
    assert said[-1] in {"UNAVAILABLE", "CANCELLED"}  # a call that comes too late is refused; all others were answered
    assert set(said[:-1]) == {"OK"}
    assert not Path(serve.address.path).exists()


def test_sigint_ends_it_too(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        serve.child._signal(signal.SIGINT)
        assert wait_until("ending", lambda: serve.child.exit_code, within=10) is None or serve.child.exit_code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "here"], "--listen: `here` is neither unix:/path nor host:port"),
        (["--listen", "0.0.0.0:9191"], "--listen 0.0.0.0:9191: plaintext beyond this machine"),
        (["--listen", "127.0.0.1:9191", "--listen", "127.0.0.1:9191"], "--listen: the same address twice"),
        (["--probes", "unix:/x"], "--probes: `unix:/x` is no host:port"),
        (["--admin", "unix:/x"], "--admin: `unix:/x` is neither host:port, such as 127.0.0.1:8181, nor off"),
        (["--admin", "no"], "--admin: `no` is neither unix:/path nor host:port"),
        (["--admin", "0.0.0.0:8181"], "--admin 0.0.0.0:8181: whoever reaches it sees policies"),
        (["--admin", "127.0.0.1:8282"], "--admin 127.0.0.1:8282: the address of --probes"),
        (["--trust-domain", "Cluster.Local"], "trust domain `Cluster.Local`"),
        (["--trust-domain-alias", "spiffe://x"], "trust domain `spiffe://x`"),
        (["--label", "app"], "argument --label: `app`: wants K=V"),
        (["--token-cache", "-1"], "argument --token-cache: `-1` is no number of tokens, 0 to 1000000"),
        (["--token-cache", "1000001"], "argument --token-cache: `1000001` is no number of tokens"),
        (["--token-cache", "9" * 5000], "argument --token-cache: `999"),
        (["--peer", "both"], "argument --peer: invalid choice: 'both'"),
        (["--posture", "lax"], "argument --posture: invalid choice: 'lax'"),
        (["--xfcc-mode", "forward_only"], "argument --xfcc-mode: invalid choice"),
        (["--xfcc-trusted-hops", "-1"], "--xfcc-trusted-hops"),
        (["--xfcc-trusted-hops", "1"], "--xfcc-trusted-hops 1: only --peer xfcc looks at earlier hops"),
        (["--xfcc-trusted-proxy", "spiffe://td/gateway"], "--xfcc-trusted-proxy: only --xfcc-trusted-hops, 1 or more"),
        (["--xfcc-trusted-proxy", "gateway"], "`gateway` is no SPIFFE ID"),
        (["--polices", "x"], "unrecognized arguments: --polices x; did you mean --policies?"),
        (["--polices=x"], "did you mean --policies?"),
        (["--zzzzzz"], "unrecognized arguments: --zzzzzz; see countersign --help"),
        (["--listen"], "argument --listen: expected one argument"),
    ],
)
def test_a_wrong_flag_is_refused_with_one_clear_line(policies: Path, flags: list[str], message: str) -> None:
    result = countersign("serve", "--policies", str(policies), *flags)

    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout


def test_broken_policies_at_start_are_all_named(tmp_path: Path, policies: Path) -> None:
    (policies / "p.yaml").write_text(BROKEN)
    (policies / "q.yaml").write_text("kind: [\n")
    result = countersign("serve", "--policies", str(policies), "--listen", f"unix:{tmp_path}/a.sock")

    assert result.returncode == 1
    assert f"{policies}/p.yaml:6:22: error[CS0003]" in result.stderr
    assert f"{policies}/q.yaml:2:1: error[CS0001]" in result.stderr
    assert "Traceback" not in result.stderr


INLINE = """\
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwks: '%s'}]
"""


@pytest.mark.parametrize("flags", [[], ["--token-cache", "0"]])
def test_a_remembered_token_is_refused_as_soon_as_its_key_is_withdrawn(
    tmp_path: Path, policies: Path, flags: list[str]
) -> None:
    issuer = Issuer("https://issuer.test")
    token = issuer.sign({"sub": "alice", "exp": int(time.time()) + 600}, algorithm="ES256")
    bearing = request(headers={"authorization": f"Bearer {token}"}).SerializeToString()
    (policies / "p.yaml").write_text(READERS + INLINE % json.dumps(issuer.jwks()))
    with Serve(tmp_path, policies, "--namespace", "apps", *flags) as serve:
        assert {reason(call(serve.address, bearing)) for _ in range(3)} == {"allow-rule-matched"}
        issuer.rotate("ES256", keep_old=False)
        (policies / "p.yaml").write_text(READERS + INLINE % json.dumps(issuer.jwks()))
        serve.wait_for_log("generation 2")
        assert reason(call(serve.address, bearing)) == "token-unknown-key"


def test_no_place_that_a_token_names_is_ever_asked(tmp_path: Path, policies: Path) -> None:
    """RFC 8725 3.10, CVE-2018-0114: keys come from where the policy says, whatever a header offers."""
    genuine, attacker = Issuer("https://issuer.test"), Issuer("https://issuer.test")
    claims = {"sub": "alice", "exp": int(time.time()) + 600}
    with IssuerServer(genuine) as issuer, IssuerServer(attacker) as decoy:
        (policies / "p.yaml").write_text(WITH_KEYS % issuer.jwks_uri)
        own = attacker.jwks()["keys"][1]
        offers = {"jku": decoy.jwks_uri, "x5u": decoy.jwks_uri, "jwk": own, "kid": own["kid"]}
        with Serve(tmp_path, policies, "--namespace", "apps") as serve:
            answers = []
            for by, members in ((genuine, {**offers, "kid": genuine.kid("ES256")}), (attacker, offers)):
                token = by.sign(claims, algorithm="ES256", headers=members)
                bearing = request(headers={"authorization": f"Bearer {token}"}).SerializeToString()
                answers.append(reason(call(serve.address, bearing)))

        assert answers == ["allow-rule-matched", "token-unknown-key"]
        assert (decoy.fetches, issuer.fetches > 0) == (0, True)


@pytest.mark.parametrize("what", ["socket directory", "socket path", "probes port"])
def test_a_place_that_cannot_be_listened_on_is_named(tmp_path: Path, policies: Path, what: str) -> None:
    path = tmp_path / "a.sock"
    probes = free_port()
    with Serve(tmp_path, policies) as other:
        match what:
            case "socket directory":
                path = tmp_path / "nowhere" / "a.sock"
            case "socket path":
                path = Path(other.address.path)
            case _:
                probes = other.port
        result = countersign(
            *("serve", "--policies", str(policies), "--listen", f"unix:{path}", "--probes", f"127.0.0.1:{probes}")
        )

    assert result.returncode == 3
    assert (str(probes) if what == "probes port" else str(path.parent)) in result.stderr
    assert "Traceback" not in result.stderr


def test_health_asks_the_running_process(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies) as serve:
        ready = countersign("health", "--probes", f"127.0.0.1:{serve.port}")
    gone = countersign("health", "--probes", f"127.0.0.1:{serve.port}")

    assert (ready.returncode, ready.stdout) == (0, "ok\n")
    assert gone.returncode == 3
    assert "refused" in gone.stderr


def test_health_says_no_while_no_policy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    with Serve(tmp_path, tmp_path / "policies") as serve:
        result = countersign("health", "--probes", f"127.0.0.1:{serve.port}")

    assert (result.returncode, result.stdout) == (1, "no policy has been loaded\n")


def test_a_request_that_names_no_workload_is_denied_where_no_flag_does(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies) as serve:
        assert decide(serve) == "workload-unknown"
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert decide(serve) == "allow-rule-matched"


def test_it_serves_on_several_addresses(tmp_path: Path, policies: Path) -> None:
    second = UnixAddress(str(tmp_path / "second.sock"))
    with Serve(tmp_path, policies, "--namespace", "apps", "--listen", str(second)) as serve:
        assert decide(serve) == "allow-rule-matched"
        assert reason(call(second, request().SerializeToString())) == "allow-rule-matched"
