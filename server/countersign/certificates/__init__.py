"""X.509 certificates: PEM and DER to the facts of `core.certificate`. No I/O, no clock."""
