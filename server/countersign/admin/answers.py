"""What is asked of the admin API, by path and query, to the text of the answer."""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from countersign.admin.view import Json, View
from countersign.edge.recorded import RecordedError
from countersign.explanation.conceal import without_tokens
from countersign.explanation.described_peer import DescriptionError
from countersign.policy.workload import WorkloadError

JSON: Final = "application/json"
METHOD: Final = 405

_YAML: Final = "application/yaml"
_DECISIONS: Final = "/decisions/"
_PATHS: Final = "/policies, /jwks, /config, /decisions, /decisions/ID and /explain"
_MAX_FIELDS: Final = 64  # of a query

Query = Mapping[str, list[str]]


class RefusedError(Exception):
    """A request gets this status, and this text."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Answers:
    """Paths to answers: the media type and the text."""

    def __init__(self, view: View) -> None:
        self._view = view

    def get(self, path: str, query: Query) -> tuple[str, str]:
        """Raise `RefusedError`."""
        if path == "/config":
            only(query)
            return _YAML, self._view.configuration
        return JSON, text_of(self._found(path, query))

    def _found(self, path: str, query: Query) -> Json:
        match path:
            case "/policies":
                return self._policies(query)
            case "/jwks":
                only(query)
                return self._view.jwks()
            case "/decisions":
                only(query)
                return self._view.decisions()
            case "/explain":
                return self._explain(query)
            case _ if path.startswith(_DECISIONS):
                only(query)
                return self._decision(path.removeprefix(_DECISIONS))
            case _:
                raise RefusedError(404, f"try {_PATHS}")

    def post(self, path: str, body: str) -> tuple[str, str]:
        """Raise `RefusedError`."""
        if path != "/explain":
            raise RefusedError(METHOD, "only /explain takes a body")
        try:
            return JSON, text_of(self._view.explain(body))
        except RecordedError as error:
            raise RefusedError(400, str(error)) from error
        except DescriptionError as error:
            raise RefusedError(400, f"`{error.part}`: {error.why}" if error.part else error.why) from error

    def _policies(self, query: Query) -> Json:
        only(query, "workload", "label")
        names, labels = query.get("workload", []), query.get("label", [])
        if not names and not labels:
            return self._view.policies()
        if len(names) != 1:
            raise RefusedError(400, "wants one workload=NS/APP")
        try:
            return self._view.effective(names[0], labels)
        except WorkloadError as error:
            raise RefusedError(400, str(error)) from error

    def _explain(self, query: Query) -> Json:
        only(query, "decision")
        if len(query.get("decision", [])) != 1:
            raise RefusedError(400, "POST a CheckRequest or the fields of a request in JSON, or GET with decision=ID")
        return self._decision(query["decision"][0])

    def _decision(self, number: str) -> Json:
        found = self._view.decision(number)
        if found is None:
            raise RefusedError(404, "no such decision among the latest denials")
        return found


def only(query: Query, *names: str) -> None:
    """Raise `RefusedError` if the query has parameters of other names."""
    unknown = [name for name in query if name not in names]
    if unknown:
        raise RefusedError(400, f"takes {', '.join(names) or 'no parameters'}")


def text_of(value: Json) -> str:
    """The text of an answer, without whatever looks like a token."""
    return f"{without_tokens(json.dumps(value, indent=2))}\n"


def query_of(text: str) -> Query:
    """The parameters of a query. Raise `RefusedError`."""
    try:
        return parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise RefusedError(400, "the query cannot be read") from error
