"""What is dangerous in an Envoy configuration that asks Countersign."""
