"""The fuzz targets themselves: every seed holds, and a parser that is wrong is found out."""

from random import Random
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.core.identity import Peer
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId
from countersign.core.xfcc import ClientCert
from countersign.judgement import deny
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import encode
from google.protobuf.message import DecodeError

from tests.fuzz import targets
from tests.fuzz.mutate import mutate_check
from tests.fuzz.seeds import seeds

NAMES = sorted(targets.TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_holds_and_so_does_what_comes_of_it(name: str) -> None:
    rng = Random(name)  # noqa: S311 (repeatable)
    given = [seed for seed in seeds(name) if len(seed) <= targets.TARGETS[name].longest]
    assert given
    for seed in given:
        targets.TARGETS[name].run(seed)
        targets.TARGETS[name].run(_bitten(seed, rng))


def test_a_mutated_check_still_holds() -> None:
    rng = Random("check")  # noqa: S311 (repeatable)
    given = seeds("check")
    for number in range(1000):
        changed = mutate_check(rng.choice(given), 4096, number, lambda data, longest: _bitten(data, rng)[:longest])
        targets.check(changed)


def test_the_seeds_of_a_check_are_allowed_and_denied() -> None:
    allowed = [targets._is_allowed(seed, Posture.STRICT) for seed in seeds("check")]

    assert 0 < sum(allowed) < len(allowed)


def test_a_mutated_check_is_mostly_still_one() -> None:
    base = seeds("check")[0]
    changed = {mutate_check(base, 4096, number, lambda data, _: data + b"\xff") for number in range(200)}

    assert len(changed) > 50
    assert sum(map(_is_check, changed)) > 0.8 * len(changed)


def test_a_token_that_should_not_verify_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "verify", lambda *_: None)

    with pytest.raises(AssertionError):
        targets.jwt(b"\x02" + b'{"alg":"EdDSA"}\n{"iss":"https://idp.example","exp":9e9}\ns')


def test_a_key_set_that_keeps_what_does_not_fit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ALGORITHMS", frozenset({"RS256"}))

    with pytest.raises(AssertionError):
        targets.jwks(seeds("jwks")[0])


def test_a_spiffe_id_that_is_repaired_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpiffeId, "parse", lambda text: SpiffeId(text.lower(), ""))

    with pytest.raises(AssertionError):
        targets.spiffe(b"SPIFFE://td/a")


def test_an_element_that_a_client_adds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Peer(id=SpiffeId.parse("spiffe://cluster.local/ns/x/sa/root"))
    monkeypatch.setattr(targets, "authenticate_peer", lambda *_: root)

    with pytest.raises(AssertionError):
        targets.xfcc(b"Hash=ab;URI=spiffe://cluster.local/ns/x/sa/root")


def test_an_element_that_reads_back_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "parse_xfcc", lambda text: (ClientCert(hash=text),))

    with pytest.raises(AssertionError):
        targets.xfcc(b"Hash=ab")


def test_an_allow_without_a_reason_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_is_allowed", lambda *_: True)

    for seed in seeds("check")[1:2]:  # a POST
        with pytest.raises(AssertionError):
            targets.check(seed)


@pytest.mark.parametrize(
    "answer",
    [
        pb.CheckResponse(),
        pb.CheckResponse(status=pb.Status(code=0), denied_response=pb.DeniedHttpResponse()),
        pb.CheckResponse(status=pb.Status(code=7), ok_response=pb.OkHttpResponse()),
    ],
)
def test_an_answer_that_is_not_explicit_is_found(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    class Careless:
        def __init__(self, *_: object) -> None: ...

        def answer(self, *_: object) -> bytes:
            return bytes(answer.SerializeToString())

    monkeypatch.setattr(targets, "Checker", Careless)

    with pytest.raises(AssertionError):
        targets.check(seeds("check")[0])


def test_a_busy_machine_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [encode(deny(Reason.DEADLINE_PASSED)), encode(deny(Reason.MTLS_REQUIRED))]

    class Late:
        def __init__(self, *_: object) -> None: ...

        def answer(self, *_: object) -> bytes:
            return answers.pop(0)

    monkeypatch.setattr(targets, "Checker", Late)

    assert not targets._is_allowed(b"", Posture.STRICT)
    assert not answers


def _is_check(data: bytes) -> bool:
    try:
        return pb.CheckRequest.FromString(data).HasField("attributes")
    except DecodeError:
        return False


def _bitten(data: bytes, rng: Random) -> bytes:
    """The octets with one of them changed, or a piece of them cut out or doubled."""
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.randrange(9)]
    return data[:start] + rng.choice((b"", piece * 2, bytes([rng.randrange(256)]))) + data[start + len(piece) :]
