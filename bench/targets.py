"""What was promised, as ratios within one run, against what was measured."""

import time
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bench import callout, through_envoy
from bench.changing import RELOADS, ROTATIONS, Moving
from bench.measure import Figures
from bench.overload import Overload
from bench.report import Target

_SIGNATURES = 500


def targets(
    figures: Mapping[str, Figures],
    starts: Mapping[str, float],
    rates: Mapping[str, float],
    moving: Mapping[str, Moving],
    filled: float,
    flooded: Overload | None,
) -> list[Target]:
    """Every target. ``moving``: with reloads and with rotations; ``filled``: MB with many rules and tokens.

    ``flooded``: more checks than can be answered.
    """

    def cpu(one: str, other: str) -> float | None:
        pair = figures.get(one), figures.get(other)
        return pair[0].cpu_saturated / pair[1].cpu_saturated if pair[0] and pair[1] else None

    hot, cold = figures.get(callout.HOT), figures.get(f"{callout.COLD}, RS256")
    new = figures.get(callout.NEW)
    signature = _rs256_verification() if cold else 0.0
    extra = (cold.cpu_saturated - hot.cpu_saturated) / signature if hot and cold else None
    of_token = (cold.cpu_saturated - new.cpu_saturated) / signature if new and cold else None
    ratio = rates[through_envoy.OURS] / rates[through_envoy.NATIVE] if through_envoy.NATIVE in rates else None
    return [
        Target(
            what="CPU, hot token, 10 policies / no-op native",
            limit=1.6,
            measured=cpu(callout.HOT, callout.NOOP),
            arms=(callout.NOOP, callout.HOT),
        ),
        Target(what="CPU, no question twice / no-op native", limit=None, measured=cpu(callout.NEW, callout.NOOP)),
        Target(
            what="CPU, hot token / opa-envoy-plugin",
            limit=0.25,
            measured=cpu(callout.HOT, callout.OPA),
            arms=(callout.HOT,),
        ),
        Target(
            what="CPU, hot token / opa-envoy-plugin, both with a decision log",
            limit=0.25,
            measured=cpu(callout.LOGGING, callout.OPA_LOGGING),
            arms=(callout.HOT, callout.LOGGING),
        ),
        Target(
            what="CPU, hot token / Heimdall",
            limit=1 / 3,
            measured=cpu(callout.AS_PEERS, callout.HEIMDALL),
            arms=(callout.AS_PEERS,),
        ),
        *(
            Target(what=f"CPU, {ours} / {peer}", limit=None, measured=cpu(arm, peer))
            for ours, arm in (("no question twice", callout.NEW), ("cold RS256", f"{callout.COLD}, RS256"))
            for peer in (callout.OPA, callout.HEIMDALL)
        ),
        Target(
            what="CPU, hot token / no-op Go",
            limit=1.5,
            measured=cpu(callout.HOT, callout.NOOP_GO),
            arms=(callout.HOT,),
        ),
        Target(what="requests/s through Envoy / native filters", limit=0.7, measured=ratio, at_least=True),
        Target(
            what="CPU, 10,000 rules / 10 rules",
            limit=1.5,
            measured=cpu(callout.MANY, callout.HOT),
            arms=(callout.HOT, callout.MANY),
        ),
        Target(
            what="CPU, cold RS256 minus hot / one verification",
            limit=1.6,
            measured=extra,
            arms=(callout.HOT, f"{callout.COLD}, RS256"),
        ),
        Target(what="... minus hot in no question twice", limit=None, measured=of_token),
        *(
            Target(what=f"p99 with a {what} / without", limit=limit, measured=each and each.moved / each.calm)
            for what, limit, each in (
                ("reload each second", 1.3, moving.get(RELOADS)),
                ("rotation each 1.25 s", None, moving.get(ROTATIONS)),
            )
        ),
        Target(what="ms until a check too many hears so, p99", limit=5, measured=flooded and flooded.shed_p99 * 1e3),
        Target(what="seconds until all are answered after a flood", limit=1, measured=flooded and flooded.recovery),
        Target(what="MB, idle", limit=70, measured=hot.idle if hot else None),
        Target(what="MB, 10,000 rules and 100,000 cached tokens", limit=200, measured=filled or None),
        Target(what="seconds to SERVING, 1,000 policies", limit=1.5, measured=starts.get(callout.THOUSAND)),
    ]


def _rs256_verification() -> float:
    """CPU microseconds of one RS256 verification by the library underneath."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signature = key.sign(b"x" * 500, padding.PKCS1v15(), hashes.SHA256())
    public = key.public_key()
    began = time.process_time()
    for _ in range(_SIGNATURES):
        public.verify(signature, b"x" * 500, padding.PKCS1v15(), hashes.SHA256())
    return (time.process_time() - began) / _SIGNATURES * 1e6
