"""As `test_findings`, for filters that come later: what may come around the check is known by its type."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import snapshot
from tests.envoy.sidecar import CONFIGURATION, config_dump, sidecars
from tests.envoy.test_findings import CACHE, PACKAGE, POLICIES, SCRIPT

pytestmark = pytest.mark.envoy

MESH: Final = Mesh(namespace="apps")
LUA: Final = {"@type": f"{PACKAGE}.lua.v3.Lua", "default_source_code": {"inline_string": SCRIPT}}
NOTHING: Final = {"@type": LUA["@type"]}
MEMORY: Final = {"@type": f"{PACKAGE}.cache.v3.CacheConfig", "typed_config": CACHE}


def _discovered(directory: Path, config: dict[str, Any], index: int, **more: object) -> str:
    """The sidecar with a filter, the first or the second, whose configuration is in a file of its own."""
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    extension = {"@type": kind, "name": "found", "typed_config": config}
    file = directory / "certs" / "found.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"version_info": "1", "resources": [extension]}))
    source = {"path_config_source": {"path": "/run/mesh/certs/found.yaml"}}
    discovery = {"config_source": source, "type_urls": [config["@type"]], **more}
    document = yaml.safe_load(CONFIGURATION)  # both filter chains have the same manager: it is an alias
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].insert(index, {"name": "found", "config_discovery": discovery})
    return yaml.safe_dump(document)


def _codes(text: str) -> set[tuple[str, str]]:
    return {(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", Expected()).problems}


def _notes(text: str) -> int:
    return len(look(text.encode(), "envoy.yaml", Expected()).notes)


@pytest.mark.parametrize("more", [{}, {"default_config": NOTHING}], ids=["nothing", "a default"])
def test_a_writer_that_is_still_to_come_is_found_by_its_type(tmp_path: Path, more: dict[str, object]) -> None:
    texts = [_discovered(tmp_path, LUA, index, **more) for index in (1, 0)]
    late = {(str(EnvoyCode.CHANGED_AFTERWARDS), "error")}
    assert ([_codes(text) for text in texts], [_notes(text) for text in texts]) == ([late, set()], [1, 1])

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, MESH)) as (after, before):
        steered = after.ask("sleep", "/free", ("x-to", "/admin"))
        assert (steered.reason, steered.echo["path"]) == ("allow-rule-matched", "/admin")
        assert before.get("sleep", "/free", ("x-to", "/admin")) == (403, "deny-rule-matched")
        dumps = [config_dump(tmp_path, number) for number in range(2)]

    assert ([_codes(dump) for dump in dumps], [_notes(dump) for dump in dumps]) == ([late, set()], [0, 0])


def test_what_else_is_still_to_come_is_found_by_its_type(tmp_path: Path) -> None:
    before, after = (_discovered(tmp_path, MEMORY, index) for index in (0, 1))

    assert _codes(before) == {(str(EnvoyCode.ANSWERED_BEFORE), "error")}
    assert _codes(after) == set()
    tokens = {"@type": f"{PACKAGE}.jwt_authn.v3.JwtAuthentication"}
    assert _codes(_discovered(tmp_path, tokens, 1)) == {(str(EnvoyCode.CHANGED_AFTERWARDS), "warning")}


def test_until_a_check_comes_its_default_is_what_judges(tmp_path: Path) -> None:
    document = yaml.safe_load(CONFIGURATION)
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    check = manager["http_filters"][0]
    default = check.pop("typed_config")
    source = {"path_config_source": {"path": "/run/mesh/certs/none.yaml"}}
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "none.yaml").write_text('{"version_info": "1", "resources": []}')
    check["config_discovery"] = {
        "config_source": source,
        "type_urls": [default["@type"]],
        "default_config": default,
        "apply_default_config_without_warming": True,
    }
    strict = yaml.safe_dump(document)
    default["filter_enabled"] = {"default_value": {"numerator": 0}}
    off = yaml.safe_dump(document)
    assert [_codes(text) for text in (off, strict)] == [{(str(EnvoyCode.ASKED_SOMETIMES), "error")}, set()]
    assert [_notes(text) for text in (off, strict)] == [1, 1]

    with sidecars(tmp_path, [off, strict], snapshot(POLICIES, {}, MESH)) as (unchecked, checked):
        assert unchecked.get("batch", "/free") == (200, "")
        assert checked.get("batch", "/free") == (403, "no-allow-rule-matched")
