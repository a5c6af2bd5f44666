"""The text of ``/metrics``: written when it is asked for, from what was counted.

Label sets are closed: reasons are members of an enum, policies, issuers and sources of keys are those of the policies
that were loaded. No request can make a series.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from countersign.core.decision import AllowReason, Reason
from countersign.edge.build import build
from countersign.edge.keys.url import shown
from countersign.edge.kubernetes.standing import ClusterStanding
from countersign.edge.metrics.state import Counted, Loads, State
from countersign.edge.metrics.tally import BUCKETS, STAGES, Duration, Kind
from countersign.edge.tls.source import TlsStanding
from countersign.tokens.keyring import SourceState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_REASONS: Final = (*AllowReason, *Reason)
_OF_TOKENS: Final = ("token-", "keys-")  # how the reasons begin that are about the second proof
_ACCEPTED: Final = "accepted"
_FETCHED: Final = ("changed", "unchanged", "failed")


_Counts = Counter[tuple[str, ...]]


class Exposition(Collector):
    """Gives what ``state`` says to Prometheus."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The answer to ``GET /metrics``."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """None in advance: what is registered is not collected for it."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every series, those that never counted included where they are known: a rate wants a beginning."""
        state = self._state()
        yield InfoMetricFamily("countersign_build", "What runs.", build())
        yield from _of_checks(state.counted.totals.kinds)
        yield from _of_durations(state.counted.totals.durations)
        yield from _of_memory(state.counted)
        log = state.counted.log
        yield _counted("countersign_decision_log_records", "Records written to the log of decisions.", log.records)
        yield _counted("countersign_decision_log_lost", "Decisions without a record: the log was full.", log.lost)
        yield from _of_policies(state.loads)
        yield from _of_cluster(state.cluster)
        yield from _of_keys(state.keys, state.fetches)
        yield from _of_certificate(state.tls)
        yield _gauge("countersign_processes", "Processes that should answer checks.", state.processes)
        yield _gauge("countersign_processes_serving", "Processes that answer checks.", state.serving)


def _of_checks(kinds: Mapping[Kind, int]) -> Iterator[Metric]:
    by_reason = Counter[str]()
    by_policy, tried, tokens = _Counts(), _Counts(), _Counts()
    for kind, times in kinds.items():
        decision = _decision(kind.reason)
        by_reason[kind.reason] += times
        if kind.policy:
            by_policy[kind.policy, decision] += times
        if kind.would is not None:
            tried[decision, _decision(kind.would), str(kind.would)] += times
        if kind.reason.startswith(_OF_TOKENS):
            tokens[kind.issuer, str(kind.reason)] += times
        elif kind.issuer:
            tokens[kind.issuer, _ACCEPTED] += times
    checks = CounterMetricFamily(
        "countersign_checks", "Checks answered, by decision and reason.", labels=("decision", "reason")
    )
    for reason in _REASONS:
        checks.add_metric((_decision(reason), reason), by_reason[reason])
    yield checks
    yield _counter("countersign_policy_decisions", "Decisions by policy rule.", ("policy", "decision"), by_policy)
    yield _counter(
        "countersign_dry_run",
        "Checks for which policies are tried: what was decided, and what would have been and why.",
        ("decision", "would", "reason"),
        tried,
    )
    yield _counter(
        "countersign_tokens",
        "Tokens by issuer and result. The issuer of a refused token is proven only where it was bound to another peer.",
        ("issuer", "result"),
        tokens,
    )


def _of_durations(durations: Mapping[str, Duration]) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        "countersign_check_duration_seconds",
        "From when a check is taken up to its answer, and by stage. An answer from memory has no stages.",
        labels=("stage",),
    )
    for stage in STAGES:
        duration = durations.get(stage, Duration())
        buckets, until = [], 0
        for number, count in enumerate(duration.buckets):
            until += count
            buckets.append((str(2**number / 1e6) if number < BUCKETS else "+Inf", until))
        family.add_metric((stage,), buckets, duration.seconds)
    yield family


def _of_memory(counted: Counted) -> Iterator[Metric]:
    tokens = counted.tokens
    yield _counted("countersign_answers_remembered", "Checks answered from memory.", counted.totals.remembered)
    yield _counted("countersign_token_cache_hits", "Tokens known to verify.", tokens.hits)
    yield _counted("countersign_token_cache_misses", "Tokens that had to be verified.", tokens.misses)
    yield _counted("countersign_token_cache_evictions", "Tokens forgotten for others.", tokens.evictions)
    yield _gauge("countersign_token_cache_entries", "Tokens remembered.", tokens.entries)
    yield _gauge("countersign_checks_held", "Checks that wait for keys.", counted.held)


def _of_policies(loads: Loads) -> Iterator[Metric]:
    counts = _Counts({("good",): loads.good, ("bad",): loads.bad})
    yield _counter("countersign_policy_loads", "Times that changed policies were read.", ("result",), counts)
    yield _gauge("countersign_policy_last_load_timestamp_seconds", "When policies were last put in force.", loads.at)
    yield _gauge("countersign_policy_generation", "Which policies are in force.", loads.generation)


def _of_cluster(cluster: ClusterStanding | None) -> Iterator[Metric]:
    if cluster is None:
        return
    yield _gauge("countersign_cluster_watched", "Whether changes of the cluster's policies come.", not cluster.problem)
    yield _gauge("countersign_cluster_contact_timestamp_seconds", "When the API server last answered.", cluster.contact)
    yield _counted("countersign_cluster_lists", "Whole lists read from the API server.", cluster.lists)
    yield _counted("countersign_cluster_failures", "Requests to the API server that failed.", cluster.failures)


def _of_keys(states: Iterable[SourceState], fetches: Mapping[tuple[str, ...], int]) -> Iterator[Metric]:
    labels = ("source",)
    usable = GaugeMetricFamily("countersign_keys", "Keys that may verify tokens.", labels=labels)
    age = GaugeMetricFamily("countersign_keys_age_seconds", "Since the source confirmed its keys.", labels=labels)
    left = GaugeMetricFamily("countersign_keys_expire_seconds", "Until keys count no more.", labels=labels)
    failing = GaugeMetricFamily("countersign_keys_failures", "Failed fetches since the last good one.", labels=labels)
    by_result = _Counts(fetches)
    for state in states:
        source = (shown(state.source),)
        usable.add_metric(source, 0 if state.keys is None else len(state.keys.keys))
        failing.add_metric(source, state.failures)
        if state.age is not None:
            age.add_metric(source, state.age)
        if state.expires_in is not None:
            left.add_metric(source, state.expires_in)
        for result in _FETCHED:
            by_result[shown(state.source), result] += 0
    yield from (usable, age, left, failing)
    yield _counter("countersign_key_fetches", "Fetches of keys by result.", ("source", "result"), by_result)


def _of_certificate(tls: TlsStanding | None) -> Iterator[Metric]:
    """Without TLS there are no series: a time of 0 would be an alert."""
    until = GaugeMetricFamily("countersign_tls_certificate_expiry_timestamp_seconds", "When the TLS certificate ends.")
    since = GaugeMetricFamily(
        "countersign_tls_certificate_start_timestamp_seconds", "From when the TLS certificate counts."
    )
    refused = GaugeMetricFamily(
        "countersign_tls_certificate_refused", "1 where a newer one is refused, or its source is lost."
    )
    if tls is not None:
        until.add_metric((), tls.not_after)
        since.add_metric((), tls.not_before)
        refused.add_metric((), int(bool(tls.problem)))
    yield from (until, since, refused)


def _decision(reason: AllowReason | Reason) -> str:
    return "allow" if isinstance(reason, AllowReason) else "deny"


def _counter(name: str, text: str, labels: tuple[str, ...], counts: _Counts) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def _counted(name: str, text: str, count: int) -> Metric:
    return CounterMetricFamily(name, text, value=count)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
