"""Compiles modules of the request path with mypyc, in a wheel that is asked to have them compiled: docs/performance.md.

Without HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 nothing of this runs, and a wheel is pure Python. Which modules, and why no
others, is in pyproject.toml. Their sources stay in the wheel: tracebacks quote them.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

_SOURCES = Path("server")  # below the directory of pyproject.toml
_PACKAGE = _SOURCES / "countersign"


class CompiledHook(BuildHookInterface[Any]):
    """Adds an extension module beside each compiled source; Python imports it instead of the source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. ``version`` is ``standard`` or ``editable``: an editable install has sources only."""
        if version == "editable":
            return
        self._place = TemporaryDirectory(prefix="countersign-compiled-")
        os.chdir(self.root)
        libraries = Path(self._place.name, "lib")
        _compile(_chosen(self.config["modules"], self.config["interpreted"]), Path(self._place.name))
        build_data["force_include"] |= {str(file): str(file.relative_to(libraries)) for file in libraries.rglob("*.so")}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: it is in the wheel."""
        del build_data, artifact_path
        if version != "editable":
            self._place.cleanup()


def _chosen(modules: list[str], interpreted: list[str]) -> list[str]:
    """The sources that the patterns name, but for those that stay Python. Raise ValueError for a pattern of nothing."""
    found = [{*_PACKAGE.glob(pattern)} for pattern in (*modules, *interpreted)]
    for pattern, files in zip((*modules, *interpreted), found, strict=True):
        if not files:
            raise ValueError(f"pyproject.toml, modules to compile: `{pattern}` is no module")
    named, left_out = set[Path]().union(*found[: len(modules)]), set[Path]().union(*found[len(modules) :])
    return sorted(str(path) for path in named - left_out if path.name != "__init__.py")


def _compile(sources: list[str], place: Path) -> None:
    # Paths of this machine stay out of what is built, and so do numbers of lines that gdb would want.
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} -g0 -ffile-prefix-map={place}=."
    extensions = mypycify(
        ["--config-file=pyproject.toml", f"--cache-dir={place / 'cache'}", *sources],
        opt_level="3",
        debug_level="0",
        target_dir=str(place / "c"),
        group_name="countersign",
    )
    command = build_ext(Distribution({"name": "countersign", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(place / "lib"), str(place / "objects")
    command.ensure_finalized()
    command.run()
