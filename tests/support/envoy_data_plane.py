"""Envoy's API by an independent codec (betterproto2), which warns of its own pydantic usage when it is imported."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.service.auth import v3 as auth
    from envoy_data_plane.envoy.service.discovery import v3 as discovery
    from envoy_data_plane.envoy.type import v3 as types
    from envoy_data_plane.google import rpc

__all__ = ["auth", "core", "discovery", "rpc", "types"]
