"""The demo mesh: certificates, an issuer, an upstream, real Envoys, and the requests that show the main job."""
