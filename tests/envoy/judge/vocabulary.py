"""The words of random policies and requests: few, and close to each other, so that they meet and just miss."""

from collections.abc import Mapping
from typing import Final

Words = tuple[str, ...]

SEGMENTS: Final[Words] = ("api", "admin", "v1", "users", "static", "a.b", "Admin", "a-b_c~d", "x:y", "cart", "store")
HOSTS: Final[Words] = (
    "web.example", "web.example", "web.example:8080", "WEB.example", "api.web.example", "web.example.",
    "web.example.org",
    "127.0.0.1:8080", "[::1]:8080", "webXexample",
)  # fmt: skip
METHODS: Final[Words] = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
HEADERS: Final[Words] = (
    *("x-role", "x-team", "X-Env", "x-user", "x-out", "accept", "user-agent", "content-type"),
    *("q", "ab", "x-long" + "-name" * 25),  # lengths on both sides of one octet of a varint, and of two
)
HEADER_WORDS: Final[Words] = (
    "admin", "user", "admin-eu", "Admin", "eu", "", "admin,user", "a*c", "abc", "*", "application/json", "red team",
    "*a",
)  # fmt: skip
SOURCES: Final[Words] = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.1.2", "127.9.9.9")
SNIS: Final[Words] = ("", "", "web.example", "api.web.example", "other.example")
OUTPUTS: Final[Words] = ("x-user", "x-out", "x-role", "X-Claim-Out")
_NETWORKS: Final[Words] = (
    "::ffff:127.0.0.0/104", "127.0.0.3/0", "::ffff:127.0.0.2", "127.0.0.1", "127.0.0.2/31", "127.0.0.0/24",
    "127.0.1.77/24", "127.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0", "::/0",
    "::1",
    "127.9.9.9",
)  # fmt: skip
_REMOTE_NETWORKS: Final[Words] = (*_NETWORKS, "10.1.0.0/16", "10.1.1.1", "10.2.2.2", "2001:db8::/32")
FORWARDED: Final[Words] = (
    "10.1.1.1", "10.1.1.1, 10.2.2.2", "10.2.2.2,10.1.1.1", "unknown", "10.1.1.1:443", "2001:db8::1", "", " 10.1.1.1 ",
    "[2001:db8::1]:443", "::ffff:10.1.1.1", "10.1.1.1,,", "10.1.1.256", "127.0.0.1",
)  # fmt: skip
_PEERS: Final[Words] = (
    "cluster.local/ns/apps/sa/sleep", "cluster.local/ns/edge/sa/web", "old.example/ns/apps/sa/sleep",
    "cluster.local/ns/legacy-apps/sa/batch-sleep", "cluster.local/ns/apps/*", "cluster.local/*", "*/sa/sleep", "*sleep",
    "*/ns/apps/sa/sleep", "*.local/ns/apps/sa/sleep", "*e/ns/edge/sa/web", "old*/ns/edge/sa/web", "*",
    "cluster.local/monitor",
    "cluster.local/ns/apps/sa/slee", "Cluster.local/ns/apps/sa/sleep", "cluster.local/ns/*/sa/web", "*ns*",
    "foreign.example/ns/apps/sa/sleep", "cluster.local/region/eu/ns/apps/team/red/sa/sleep/v2",
    "**", "**/ns/apps/sa/sleep", "clus*/ns/apps/sa/sleep", "cluster.local/ns/apps/sa/sl*", "/", "*/",
    "clus*al/ns/apps/sa/sleep",
    "spiffe://cluster.local/ns/apps/sa/sleep", "*cluster.local/ns/edge/sa/web", "*.example/ns/apps/sa/*",
    "*l/ns/*/sa/web",
)  # fmt: skip
_SUBJECTS: Final[Words] = (
    "*", "https://idp.example/*", "https://idp.example/alice", "https://idp.example//alice", "*/alice", "*/bob",
    "plain-issuer/*",
    "plain-issuer", "plain*", "*alice", "https://idp*", "https://login.example/realms/x/al*", "*/realms/x/alice",
    "*.example/*",
    "https://idp.example/", "https://idp.example/team/alice", "*/*", "plain-issuer/", "**", "*/al*", "/", "*/",
    "/alice",
    "https://idp.example/*ice", "https://idp.example/**", "*", "//*",
)  # fmt: skip
_CLAIM_WORDS: Final[Words] = (
    "admin", "user", "dev", "ops", "red", "y", "read", "write", "read write", "*", "a*", "*s", "x y", "x", "dotted",
    "5", "true",
    "svc", "https://svc/", "other", "cli", "c*", "alice", "", "team/alice",
)  # fmt: skip
_CLAIM_WORDS_GIVEN: Final[Words] = tuple(word for word in _CLAIM_WORDS if word)  # an empty value is invalid

SOURCE: Final[Mapping[str, Words]] = {
    "principals": _PEERS,
    "namespaces": (
        "apps", "edge", "legacy-apps", "ap*", "*ps", "*", "leg*apps", "a*", "other", "ns", "apps/sa", "a.ps", "team",
        "**", "*p*", "apps/*/sleep", "/", "ap(p)s", "*/team/*",
    ),
    "requestPrincipals": _SUBJECTS,
    "ipBlocks": _NETWORKS,
    "remoteIpBlocks": _REMOTE_NETWORKS,
    "serviceAccounts": (
        "apps/sleep", "sleep", "edge/web", "web", "legacy-apps/batch-sleep", "apps/slee", "apps/sl.ep", "sa/sleep",
    ),
    "trustDomains": (
        "cluster.local", "old.example", "foreign.example", "*", "cluster*", "*.example", "*local", "cluster",
        "clusterXlocal",
        "Cluster.local", "cluster.local*",
    ),
}  # fmt: skip
AUTHENTICATED: Final = ("source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain")
TEMPLATES: Final[Words] = (
    "/api/{*}", "/api/{**}", "/{*}/admin", "/store/{**}/cart", "/{**}", "/{*}", "/api/{*}/{**}", "/{*}/{*}/users",
    "/api/{*}/", "/{**}/", "/{**}/users/", "/a.b/{*}", "/api/{**}/v1",
)  # fmt: skip
OPERATION: Final[Mapping[str, Words]] = {
    "hosts": (
        "web.example", "web.example:8080", "*.example", "web.*", "*", "WEB.Example", "*:8080", "api.web.example",
        "web.example.",
        "[::1]:8080", "*example*", "**", "*.", "web.example*", "127.0.0.1*",
    ),
    "methods": ("GET", "POST", "P*", "*T", "*", "get", "DELETE", "OPTIONS", "G*T", "HEAD", "**"),
    "paths": (
        "/api", "/api/*", "/admin", "/admin/*", "*/users", "*.css", "*", "/", "/api/v1/users", "/a*", "/api/*/users",
        "/ADMIN",
        "/static/a.b", "*admin*", "/api/", "/admin;x=1", "/%61dmin", "**", "*/", "admin", "/api?*", "//*",
        "/admin#*", "*?*",
    ),
    "ports": ("8080", "9090", "80", "443", "08080", "0"),
}  # fmt: skip
_HEADER_PATTERNS: Final[Words] = (
    "admin",
    "user",
    "admin-*",
    "*-eu",
    "*",
    "a*c",
    "admin,user",
    "*r",
    "Admin",
    "*admin",
    "a*",
    "red*",
    "**",
    "*,*",
    ",*",
)
CLAIMS: Final[Words] = (
    "iss", "sub", "role", "groups", "scope", "permission", "nested][team", "nested][deep][x", "nested][deep", "level",
    "ok",
    "custom.claim", "a.b", "aud", "missing", "nested][team][x", "[role]", "note", "exp", "role]", "nested]x[team",
    "role][0",
    "nested][[team]", "Role",
)  # fmt: skip
CONDITIONS: Final[Mapping[str, Words]] = {
    "source.ip": _NETWORKS,
    "remote.ip": _REMOTE_NETWORKS,
    "source.namespace": SOURCE["namespaces"],
    "source.principal": _PEERS,
    "source.serviceAccount": SOURCE["serviceAccounts"],
    "source.trustDomain": SOURCE["trustDomains"],
    "request.auth.principal": _SUBJECTS,
    "request.auth.audiences": _CLAIM_WORDS_GIVEN,
    "request.auth.presenter": _CLAIM_WORDS_GIVEN,
    "destination.ip": ("127.77.0.0/16", "127.78.0.0/15", "127.0.0.0/8", "10.0.0.1", "::/0"),
    "destination.port": OPERATION["ports"],
    "connection.sni": ("web.example", "*.example", "*", "api.*", "WEB.example", "other.example", "**", "web*"),
    "experimental.envoy.filters.a.b[c]": ("v", "*", "[v]", "v*", "x"),
    "experimental.envoy.filters.a.b[l]": ("v", "*", "[v]", "[*]", "[x]", "[w*]"),
    "experimental.envoy.filters.a.b[n]": ("5", "*", "[5]"),
    "experimental.envoy.filters.other[c]": ("v", "*", "[v]"),
    "experimental.envoy.filters.a.b[c][d]": ("v", "*", "[v]"),
    "experimental.envoy.filters.a.b[[c]": ("v", "*", "[v]"),
    **{f"request.headers[{name}]": _HEADER_PATTERNS for name in (*HEADERS, "x-absent", "authorization", "cookie")},
    "request.headers[:method]": OPERATION["methods"],
    "request.headers[:path]": OPERATION["paths"],
    "request.headers[:authority]": OPERATION["hosts"],
    "request.headers[host]": OPERATION["hosts"],
    "request.headers[x-forwarded-proto]": ("http", "https", "*"),
    **{f"request.auth.claims[{path}]": _CLAIM_WORDS_GIVEN for path in CLAIMS},
}
