"""The demo's SVIDs are what SPIFFE asks for, short-lived, and nobody else's to read."""

import datetime as dt
import stat
from pathlib import Path

import pytest
from countersign.core.spiffe import SpiffeId
from countersign.mesh.certificates import LIFETIME, WORKLOADS, Authority, Workload, write_certificates
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)

each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(NOW)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    write_certificates(directory, NOW)
    return directory


def _leaf(authority: Authority, workload: Workload) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.issue(workload)[0])


@each_workload
def test_a_certificate_has_exactly_one_uri_and_it_is_the_spiffe_id(authority: Authority, workload: Workload) -> None:
    names = _leaf(authority, workload).extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [workload.spiffe_id]
    assert str(SpiffeId.parse(workload.spiffe_id)) == workload.spiffe_id


@each_workload
def test_a_workload_may_sign_handshakes_and_nothing_else(authority: Authority, workload: Workload) -> None:
    extensions = _leaf(authority, workload).extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert constraints.critical
    assert not constraints.value.ca
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


@each_workload
def test_a_certificate_ends_with_its_day(authority: Authority, workload: Workload) -> None:
    leaf = _leaf(authority, workload)

    assert leaf.not_valid_before_utc < NOW
    assert leaf.not_valid_after_utc == NOW + LIFETIME
    assert dt.timedelta(hours=24) >= LIFETIME


def test_the_authority_signs_workloads_and_no_further_authorities(authority: Authority) -> None:
    extensions = authority.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value

    assert constraints.ca
    assert constraints.path_length == 0
    assert usage.key_cert_sign
    assert not usage.digital_signature


@each_workload
def test_a_written_certificate_fits_its_key_and_its_authority(written: Path, workload: Workload) -> None:
    home = written / workload.name
    leaf = x509.load_pem_x509_certificate((home / "tls.crt").read_bytes())
    key = load_pem_private_key((home / "tls.key").read_bytes(), None)
    ca = x509.load_pem_x509_certificate((home / "ca.crt").read_bytes())

    leaf.verify_directly_issued_by(ca)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == leaf.public_key()


def test_only_the_owner_can_read_what_is_written_and_no_authority_key_is(written: Path) -> None:
    files = [file for file in written.rglob("*") if file.is_file()]

    assert sorted({file.name for file in files}) == ["ca.crt", "tls.crt", "tls.key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}


def test_writing_again_replaces_every_file(tmp_path: Path) -> None:
    write_certificates(tmp_path, NOW)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    write_certificates(tmp_path, NOW)
    after = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}

    assert before.keys() == after.keys()
    assert all(before[file] != after[file] for file in before)
