"""The text of `/metrics`, as Prometheus reads it."""

import json
import re
from dataclasses import replace
from typing import Final

from countersign import authorize
from countersign.core.decision import AllowReason, DryRun, Reason
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.keys.url import shown
from countersign.edge.metrics.exposition import Exposition
from countersign.edge.metrics.state import Counted, Loads, State, Tokens
from countersign.edge.metrics.tally import Tally
from countersign.edge.observed import Stages
from countersign.edge.tls.source import TlsStanding
from countersign.tokens.keyring import Keyring
from countersign.tokens.keys import KeySet
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.edge.metrics.test_tally import TOKEN, allowed, answered, denied
from tests.tokens.material import jwk

SOURCE: Final = RemoteKeys("https://issuer.test/jwks.json", 5.0)


def read(state: State) -> dict[str, Metric]:
    text = Exposition(lambda: state).text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(family: Metric) -> dict[tuple[str, ...], float]:
    """Values by the values of the labels, which come in the order of their names."""
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def counted(*judged: object) -> State:
    tally = Tally()
    for each in judged:
        tally.count(answered(each))  # type: ignore[arg-type]  # what the helpers make
    return State(counted=Counted(totals=tally.totals()))


def test_every_reason_has_a_series_from_the_start_and_nothing_else_ever_has() -> None:
    expected = {("allow", str(reason)) for reason in AllowReason} | {("deny", str(reason)) for reason in Reason}
    assert samples(read(State())["countersign_checks"]) == dict.fromkeys(expected, 0)

    found = samples(read(counted(denied(Reason.PEER_MISMATCH), allowed()))["countersign_checks"])
    assert found.keys() == expected
    assert {series for series, value in found.items() if value} == {
        ("deny", "peer-mismatch"),
        ("allow", "allow-rule-matched"),
    }


def test_decisions_are_told_by_policy_and_what_would_have_been_denied_apart() -> None:
    would = DryRun(reason=Reason.DENY_RULE_MATCHED, policy=None)
    families = read(counted(allowed(), allowed(), allowed("tried", dry_run=would)))
    assert samples(families["countersign_policy_decisions"]) == {
        ("allow", "ns[a]-policy[b]-rule[0]"): 2,
        ("allow", "tried"): 1,
    }
    assert samples(families["countersign_dry_run"]) == {("allow", "deny-rule-matched", "deny"): 1}


def test_an_issuer_is_named_only_where_its_token_has_verified() -> None:
    verified = allowed()
    object.__setattr__(verified, "token", TOKEN)
    families = read(counted(verified, denied(Reason.TOKEN_EXPIRED), denied(Reason.KEYS_UNAVAILABLE), allowed()))
    assert samples(families["countersign_tokens"]) == {
        ("https://issuer.test", "accepted"): 1,
        ("", "token-expired"): 1,
        ("", "keys-unavailable"): 1,
    }


def test_a_query_of_a_source_is_not_told_and_sources_that_differ_in_it_are_two() -> None:
    keyring = Keyring()
    sources = [RemoteKeys(f"https://issuer.test/keys?secret={number}") for number in "ab"]
    keyring.track(sources, 0.0)
    state = State(keys=keyring.states(1.0))

    assert b"secret" not in Exposition(lambda: state).text()
    told = [label for (label,) in samples(read(state)["countersign_keys"])]
    assert len(set(told)) == 2
    assert all(label.startswith("https://issuer.test/keys?REDACTED-") for label in told)
    assert shown(SOURCE) == SOURCE.uri


def test_durations_are_histograms_in_seconds() -> None:
    tally = Tally()
    tally.count(answered(allowed(), stages=Stages(0.001, 0.002, 0.0, 0.5)))
    family = read(State(counted=Counted(totals=tally.totals())))["countersign_check_duration_seconds"]
    total = [sample for sample in family.samples if sample.labels["stage"] == "total"]
    buckets = {sample.labels["le"]: sample.value for sample in total if sample.name.endswith("_bucket")}
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets["+Inf"] == 1
    assert max((le for le, count in buckets.items() if not count), key=float) == "0.262144"
    assert [sample.value for sample in total if sample.name.endswith("_sum")] == [0.503]
    assert [sample.value for sample in total if sample.name.endswith("_count")] == [1]


def test_keys_policies_tokens_and_processes_are_told() -> None:
    keyring = Keyring()
    keyring.track([SOURCE], 0.0)
    keyring.started(SOURCE)
    keyring.fetched(SOURCE, KeySet.parse(json.dumps({"keys": [jwk("ES256")]})), 10.0)
    families = read(
        State(
            counted=Counted(tokens=Tokens(hits=5, misses=4, evictions=3, entries=2), held=1),
            loads=Loads(good=3, bad=1, at=1234.5, generation=3),
            keys=keyring.states(40.0),
            fetches={(str(SOURCE), "changed"): 1},
            serving=1,
            processes=2,
        )
    )
    source = str(SOURCE)
    assert samples(families["countersign_keys"]) == {(source,): 1}
    assert samples(families["countersign_keys_age_seconds"]) == {(source,): 30}
    assert samples(families["countersign_keys_expire_seconds"]) == {(source,): 24 * 3600 - 30}
    assert samples(families["countersign_keys_failures"]) == {(source,): 0}
    assert samples(families["countersign_key_fetches"]) == {
        ("changed", source): 1,
        ("unchanged", source): 0,
        ("failed", source): 0,
    }
    assert samples(families["countersign_policy_loads"]) == {("good",): 3, ("bad",): 1}
    alone = {name: family.samples[0].value for name, family in families.items() if len(family.samples) == 1}
    assert {
        "countersign_policy_last_load_timestamp_seconds": 1234.5,
        "countersign_policy_generation": 3,
        "countersign_token_cache_hits": 5,
        "countersign_token_cache_misses": 4,
        "countersign_token_cache_evictions": 3,
        "countersign_token_cache_entries": 2,
        "countersign_checks_held": 1,
        "countersign_processes": 2,
        "countersign_processes_serving": 1,
    }.items() <= alone.items()
    runs = families["countersign_build_info"].samples[0].labels
    assert re.fullmatch(r"\d+\.\d+\S*", runs["version"])
    assert runs["code"] == ("interpreted" if str(authorize.__file__).endswith(".py") else "compiled")
    assert alone["process_cpu_seconds"] > 0


def test_the_certificate_says_when_it_ends_and_whether_another_one_is_refused() -> None:
    name = "countersign_tls_certificate"
    sound = TlsStanding(not_before=1000.0, not_after=3000.0, loaded=2000.0, problem="", rotations=0)
    found, without = read(State(tls=sound)), read(State())
    refused = read(State(tls=replace(sound, problem="the key is not the certificate's")))

    assert samples(found[f"{name}_expiry_timestamp_seconds"]) == {(): 3000.0}
    assert samples(found[f"{name}_start_timestamp_seconds"]) == {(): 1000.0}
    assert samples(found[f"{name}_refused"]) == {(): 0.0}
    assert samples(refused[f"{name}_refused"]) == {(): 1.0}
    assert not without[f"{name}_expiry_timestamp_seconds"].samples
