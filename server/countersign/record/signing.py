"""Ed25519 keys of the log: PEM files, as ``openssl genpkey -algorithm ed25519`` writes them."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from countersign.record.chain import Sign


class KeyFileError(OSError):
    """The file is no key that can be used; the message names the file and what is wanted."""


def key_id(key: Ed25519PublicKey) -> str:
    """The name of a key: the first 16 digits of the SHA-256 (base16) of its 32 octets."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def read_signer(path: Path) -> tuple[str, Sign]:
    """The name of a private key, and what signs with it. Raise OSError, `KeyFileError` among them."""
    octets = path.read_bytes()
    try:
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: no private key in PEM without a password; {_MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: a key of another kind than Ed25519; {_MAKE}")
    return key_id(key.public_key()), key.sign


_MAKE = "make one by `openssl genpkey -algorithm ed25519 -out FILE`"


Verify = Callable[[str, bytes], bool]  # a signature in base16 and what it is of: whether any key has made it


def read_verifier(paths: Iterable[Path]) -> Verify:
    """What checks signatures by public keys. Raise OSError, `KeyFileError` among them."""
    keys: Mapping[str, Ed25519PublicKey] = {key_id(key): key for key in map(_public, paths)}

    def verify(signature: str, octets: bytes) -> bool:
        return any(_made(key, bytes.fromhex(signature), octets) for key in keys.values())

    return verify


def _public(path: Path) -> Ed25519PublicKey:
    octets = path.read_bytes()
    try:
        key = load_pem_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        wanted = "take it from the private one by `openssl pkey -in FILE -pubout`"
        raise KeyFileError(f"{path}: no public key in PEM; {wanted}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: a key of another kind than Ed25519")
    return key


def _made(key: Ed25519PublicKey, signature: bytes, octets: bytes) -> bool:
    try:
        key.verify(signature, octets)
    except InvalidSignature:
        return False
    return True
