"""A request is sent exactly as it is written, and its failure names the way it took."""

import json

import pytest
from countersign.mesh.client import Door, send
from countersign.mesh.process import MeshError
from countersign.mesh.upstream import upstream


def test_nothing_about_a_request_is_changed() -> None:
    with upstream("127.0.0.1", 0) as server:
        door = Door(name="the upstream", port=server.port)
        answer = send(door, "GET", "//a/../%69?b", (("x-one", "1"), ("x-one", "2")))

    echo = json.loads(answer.body)
    assert echo["path"] == "//a/../%69?b"
    assert echo["headers"] == [["host", "httpbin"], ["x-one", "1"], ["x-one", "2"]]
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


def test_a_closed_door_is_named() -> None:
    with upstream("127.0.0.1", 0) as server:
        port = server.port

    with pytest.raises(MeshError, match="GET /headers through the edge: ConnectionRefusedError"):
        send(Door(name="the edge", port=port), "GET", "/headers", ())
