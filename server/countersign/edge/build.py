"""What runs: the version, and whether the modules of the request path are compiled (docs/performance.md)."""

from importlib.machinery import ExtensionFileLoader
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

_ON_THE_PATH: Final = "countersign.authorize"  # all of them are compiled, or none


def build() -> dict[str, str]:
    """``version``, and ``code``: ``compiled`` or ``interpreted``. Nothing is imported for it."""
    spec = find_spec(_ON_THE_PATH)
    compiled = spec is not None and isinstance(spec.loader, ExtensionFileLoader)
    return {"version": version("countersign"), "code": "compiled" if compiled else "interpreted"}
