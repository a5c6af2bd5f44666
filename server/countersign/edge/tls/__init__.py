"""TLS of the gRPC port: where its certificates come from, how handshakes get them, and who may call."""
