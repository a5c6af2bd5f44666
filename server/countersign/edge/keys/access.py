"""How issuers may be reached: what an operator allows and forbids, as immutable values."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from countersign.core.jwt_rule import FetchedKeys, FileKeys
from countersign.tokens.keyring import KeyTimes

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address

# Credentials of the machine are had here, and keys never: whoever writes a policy must not make us ask.
_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # Amazon EC2; its 169.254.169.254, as Google's and Azure's, is link-local
            "fd20:ce::254",  # Google Compute Engine
            "168.63.129.16",  # Azure's wire server
            "100.100.100.200",  # Alibaba Cloud
            "192.0.0.192",  # Oracle Cloud
        ),
    )
)
_RESERVED: Final = ip_network("240.0.0.0/4")  # RFC 1112 4, and broadcast
_NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in IPv6 clothes


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The way to one issuer.

    ``ca_file`` replaces the public authorities. ``proxy`` is an http or https URL; it resolves the issuer's name, so
    that only an address in the URL itself can be checked. ``addresses``: only these, if any are given.
    ``blocked``: never these. ``insecure_http``: plaintext also beyond this machine.
    """

    ca_file: Path | None = None
    proxy: str = ""
    addresses: tuple[Network, ...] = ()
    blocked: tuple[Network, ...] = ()
    insecure_http: bool = False

    def wrong_with(self, address: IpAddress, *, plaintext: bool) -> str:
        """Why no connection may be made there; empty if one may."""
        for real in {address, _unwrapped(address)}:
            if real.is_link_local or real.is_multicast or real.is_unspecified or real in _RESERVED or real in _METADATA:
                return "the address is link-local, a cloud's metadata, or nobody's"
            if any(real in network for network in self.blocked):
                return "the address is blocked by configuration"
        if self.addresses and not any(address in network for network in self.addresses):
            return "the address is none of the configured ones"
        if plaintext and not address.is_loopback and not self.insecure_http:
            return "http without TLS goes to this machine only, unless `insecureHttp` allows it"
        return ""


def _unwrapped(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address stands for, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeys:
    """What is configured for one issuer, or for one ``jwks_uri``: the way to its keys, or a file that has them.

    ``required``: without its keys, the server does not begin to be ready.
    """

    name: str  # of the entry, as in logs
    issuer: str = ""
    jwks_uri: str = ""
    jwks_file: Path | None = None
    access: Access = Access()
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Everything about keys that is configured. ``cache_directory``: where copies survive a restart; None: nowhere."""

    times: KeyTimes = KeyTimes()  # noqa: RUF009 (frozen)
    cache_directory: Path | None = None
    blocked: tuple[Network, ...] = ()
    issuers: tuple[IssuerKeys, ...] = ()

    def access(self, name: str) -> Access:
        """The way of this name; the usual one has none."""
        for issuer in self.issuers:
            if issuer.name == name:
                return issuer.access
        return Access(blocked=self.blocked)

    def requires(self, source: FetchedKeys) -> bool:
        """Whether the server is not to be ready before it has had these keys."""
        if isinstance(source, FileKeys):
            return any(entry.required for entry in self.issuers if str(entry.jwks_file) == source.path)
        return any(entry.required for entry in self.issuers if entry.name == source.access)
