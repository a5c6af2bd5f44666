"""What is true of a request and of an identity. Pure: no I/O, no clock, no third party."""
