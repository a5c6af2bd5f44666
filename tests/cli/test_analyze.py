"""`countersign analyze`: all problems of all files, in four formats, and an exit code for pipelines."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.cli.problem_formats import FORMATS, anchor
from countersign.policy.problems import Code, Position, Problem, Severity

ROOT: Final = Path(__file__).parents[2]

HEAD: Final = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: apps}\n"
CLEAN: Final = HEAD + "spec:\n  rules:\n  - to: [{operation: {paths: [/a]}}]\n"
WARNED: Final = (
    HEAD.replace("name: a", "name: w") + "spec:\n  rules:\n  - to:\n    - operation:\n        methods: [get]\n"
)
BROKEN: Final = HEAD.replace("name: a", "name: b") + "spec:\n  rule: []\n  action: ALOW\n"
USERS: Final = (
    "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: u, namespace: apps}\n"
    "spec: {jwtRules: [{issuer: a, jwks: %s}]}\n"
)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    return directory


def _analyze(where: Path, *flags: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", "analyze", str(where), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


# --- the command ------------------------------------------------------------------------------------------------------


def test_clean_files_say_so_on_stderr_only(policies: Path) -> None:
    (policies / "a.yaml").write_text(CLEAN)
    (policies / "b.yaml").write_text("kind: ConfigMap\n")
    result = _analyze(policies)

    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "no problems in 2 files, 1 resource\n"


def test_a_directory_without_policies_is_a_finding(policies: Path) -> None:
    for text in (None, "kind: ConfigMap\n"):
        if text is not None:
            (policies / "b.yaml").write_text(text)
        result = _analyze(policies)

        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            f"countersign analyze: no policy in {policies}, and `serve` would deny every request\n"
        )


def test_warnings_are_shown_and_fail_only_if_asked_to(policies: Path) -> None:
    (policies / "w.yaml").write_text(WARNED)
    result = _analyze(Path("policies"), cwd=policies.parent)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "policies/w.yaml:8:19: warning[CS0109]: `get` in `methods` is no HTTP method: "
        "requests that should pass are denied\n"
        "            methods: [get]\n"
        "                      ^\n"
        "    help: write `GET`: methods are upper case\n"
        "\n"
        "0 errors, 1 warning in 1 file\n"
    )
    assert _analyze(policies, "--fail-on", "warning").returncode == 1
    assert _analyze(policies, "--fail-on", "error").returncode == 0


def test_errors_of_all_files_come_with_the_warnings_of_the_others(policies: Path) -> None:
    (policies / "a.yaml").write_text(BROKEN)
    (policies / "b.yaml").write_text(WARNED)
    (policies / "c.yaml").write_text("[\n")
    result = _analyze(policies, "-o", "json")

    assert result.returncode == 1
    assert [(Path(p["file"]).name, p["line"], p["code"]) for p in json.loads(result.stdout)] == [
        ("a.yaml", 5, "CS0003"),
        ("a.yaml", 6, "IST0106"),
        ("b.yaml", 8, "CS0109"),
        ("c.yaml", 2, "CS0001"),
    ]


def test_what_a_broken_file_may_have_said_is_not_missed(policies: Path) -> None:
    (policies / "users.yaml").write_text(USERS % "'{\"keys\": []}'")

    assert "CS0112" in _analyze(policies).stdout

    (policies / "broken.yaml").write_text(BROKEN)

    assert "CS0112" not in _analyze(policies).stdout


def test_warnings_of_the_parser_are_among_them(policies: Path) -> None:
    (policies / "a.yaml").write_text(CLEAN.replace("spec:\n", "spec:\n  selector: {}\n"))

    assert "warning[IST0106]: an empty `selector`" in _analyze(policies).stdout


def test_inline_keys_are_read(policies: Path) -> None:
    (policies / "users.yaml").write_text(USERS % "'{}'")
    result = _analyze(policies)

    assert result.returncode == 1
    assert "error[IST0106]: `jwks`: no `keys` array" in result.stdout


def test_inline_keys_that_cannot_verify_are_told(policies: Path) -> None:
    (policies / "users.yaml").write_text(USERS % """'{"keys": [{"kty": "oct", "kid": "s", "k": "AAAA"}]}'""")
    (policies / "a.yaml").write_text(HEAD + "spec: {rules: [{from: [{source: {requestPrincipals: [a/*]}}]}]}\n")
    (problem,) = json.loads(_analyze(policies, "-o", "json").stdout)

    assert (problem["code"], problem["line"]) == ("CS0116", 4)
    assert problem["message"] == ("a key of issuer `a` is put aside: number 1, `s`, has private or symmetric members")


def test_the_flags_reach_the_analysis(policies: Path) -> None:
    (policies / "a.yaml").write_text(
        HEAD.replace(", namespace: apps", "")
        + "spec:\n  selector: {matchLabels: {app: shop}}\n  action: DENY\n  rules:\n"
        "  - from: [{source: {principals: [td.exampel/ns/a/sa/b]}}]\n    to: [{operation: {hosts: [a.example]}}]\n"
    )
    flags = ["--namespace", "apps", "--root-namespace", "root", "-o", "json"]

    def codes(*more: str) -> list[str]:
        return [problem["code"] for problem in json.loads(_analyze(policies, *flags, *more).stdout)]

    assert _analyze(policies).returncode == 1  # no namespace
    assert codes() == []
    assert codes("--trust-domain", "td.example") == ["CS0106"]
    assert codes("--trust-domain", "td.example", "--trust-domain-alias", "td.exampel") == []
    assert codes("--posture", "istio") == ["CS0107"]
    assert codes("--workload", "apps/web:app=web") == ["IST0127"]
    assert codes("--workload", "apps/web:app=web", "--workload", "apps/shop:app=shop,tier=web") == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workload", "apps"], "--workload apps: wants NS/NAME:K=V,..., such as apps/shop:app=shop"),
        (["--workload", "apps/"], "--workload apps/: wants"),
        (["--workload", "/shop:a=b"], "--workload /shop:a=b: wants"),
        (["--workload", "a/b/c"], "--workload a/b/c: wants"),
        (["--workload", "apps/shop:app"], "--workload apps/shop:app: wants"),
        (["--workload", "apps/shop:"], "--workload apps/shop:: wants"),
        (["--trust-domain", "TD"], "trust domain `TD`: lower-case"),
        (["--trust-domain-alias", "a/b"], "trust domain `a/b`: lower-case"),
        (["-o", "xml"], "invalid choice: 'xml'"),
        (["--fail-on", "never"], "invalid choice: 'never'"),
    ],
)
def test_a_flag_that_cannot_be_used_is_a_usage_error(policies: Path, flags: list[str], message: str) -> None:
    result = _analyze(policies, *flags)

    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_workload_may_have_no_labels(policies: Path) -> None:
    (policies / "a.yaml").write_text(CLEAN)

    assert _analyze(policies, "--workload", "apps/shop").stdout == ""


def test_a_path_is_required() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "countersign", "analyze"], capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 2


def test_a_file_that_cannot_be_read_is_its_own_exit_code(policies: Path) -> None:
    (policies / "a.yaml").write_bytes(b"\xff")
    unreadable, missing = _analyze(policies), _analyze(policies / "none")

    assert unreadable.returncode == missing.returncode == 3
    assert "error[CS0008]: not UTF-8 at byte 0" in unreadable.stdout
    assert "error[CS0008]: no such file or directory" in missing.stdout


def test_the_policies_of_the_demo_have_no_errors() -> None:
    result = _analyze(Path("envoy/policies"), "--workload", "apps/httpbin:app=httpbin", "-o", "json", cwd=ROOT)

    assert result.returncode == 0
    assert [problem["code"] for problem in json.loads(result.stdout)] == ["CS0114", "CS0114"]  # as a comment says


# --- the formats ------------------------------------------------------------------------------------------------------

AWKWARD: Final = Problem(
    severity=Severity.ERROR,
    code=Code.WRONG_TYPE,
    position=Position("a dir/x:1,2%.yaml", 3, 5),
    message="wrong: 50%, twice",
    help="quote\r\nit",
    snippet="    on: é",
)
PLAIN: Final = Problem(
    severity=Severity.WARNING, code=Code.LITERAL_ASTERISK, position=Position("a.yaml", 1, 1), message="a star"
)


def test_no_problem_is_an_empty_document_in_every_format() -> None:
    assert FORMATS["text"]([], 1) == FORMATS["github"]([], 1) == ""
    assert json.loads(FORMATS["json"]([], 1)) == []
    assert json.loads(FORMATS["sarif"]([], 1))["runs"][0]["results"] == []


def test_json_has_every_part() -> None:
    assert json.loads(FORMATS["json"]([AWKWARD], 1)) == [
        {
            "code": "CS0004",
            "severity": "error",
            "file": "a dir/x:1,2%.yaml",
            "line": 3,
            "column": 5,
            "message": "wrong: 50%, twice",
            "help": "quote\r\nit",
            "docs": "docs/analyze.md#cs0004",
        }
    ]


def test_github_commands_are_escaped() -> None:
    assert FORMATS["github"]([AWKWARD, PLAIN], 2) == (
        "::error file=a dir/x%3A1%2C2%25.yaml,line=3,col=5,title=CS0004 wrong type::"
        "wrong: 50%25, twice%0Aquote%0D%0Ait\n"
        "::warning file=a.yaml,line=1,col=1,title=CS0101 literal asterisk::a star\n"
    )


def _sarif(*problems: Problem) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FORMATS["sarif"](problems, 1))
    return document


def test_sarif_has_the_shape_of_2_1_0() -> None:
    """What the schema requires, and what code scanning needs to place a result."""
    document = _sarif(AWKWARD, PLAIN, AWKWARD)
    (run,) = document["runs"]
    driver, results = run["tool"]["driver"], run["results"]

    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
    assert driver["name"] == "countersign"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", driver["semanticVersion"])
    assert [rule["id"] for rule in driver["rules"]] == ["CS0004", "CS0101"]
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] and rule["name"] for rule in driver["rules"])
    assert len(results) == 3
    for result in results:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        region = location["physicalLocation"]["region"]
        assert region["startLine"] >= 1
        assert region["startColumn"] >= 1


def test_sarif_says_what_text_says() -> None:
    awkward, plain = _sarif(AWKWARD, PLAIN)["runs"][0]["results"]

    assert (awkward["level"], plain["level"]) == ("error", "warning")
    assert awkward["message"]["text"] == "wrong: 50%, twice. quote\r\nit"
    assert plain["message"]["text"] == "a star"
    assert awkward["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20dir/x%3A1%2C2%25.yaml"},
        "region": {"startLine": 3, "startColumn": 5, "snippet": {"text": "    on: é"}},
    }
    assert plain["locations"][0]["physicalLocation"]["region"] == {"startLine": 1, "startColumn": 1}


def test_an_absolute_path_is_a_file_uri() -> None:
    problem = Problem(severity=Severity.ERROR, code=Code.SYNTAX, position=Position("/p q.yaml", 1, 1), message="x")
    (result,) = _sarif(problem)["runs"][0]["results"]

    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///p%20q.yaml"


# --- the documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", Code)
def test_every_code_has_one_row_that_its_anchor_leads_to(code: Code) -> None:
    page, _, name = anchor(code).partition("#")
    rows = re.findall(rf'^\| <a id="{name}"></a>{code} \| .+ \| .+ \|$', (ROOT / page).read_text(), re.MULTILINE)

    assert len(rows) == 1
