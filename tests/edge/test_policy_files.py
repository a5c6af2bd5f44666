"""Policy files: which are read, and that every way of changing them is seen."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from countersign.edge.policy_files import changes, digest, read_files
from countersign.policy.problems import PolicyError

WITHIN = 10.0  # seconds


def test_yaml_and_json_files_are_read_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / "b.yml").write_text("b")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.json").write_text("c")
    (tmp_path / "README.md").write_text("no")
    (tmp_path / ".hidden.yaml").write_text("no")

    texts = read_files([tmp_path])

    assert texts == {str(tmp_path / name): name[-6] for name in ("a.yaml", "sub/c.json")} | {
        str(tmp_path / "b.yml"): "b"
    }


def test_a_file_can_be_named_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / "b.yaml").write_text("b")

    assert read_files([tmp_path / "a.yaml"]) == {str(tmp_path / "a.yaml"): "a"}


def test_a_config_map_is_read_once_through_its_links(tmp_path: Path) -> None:
    _config_map(tmp_path, "..1", "one")

    assert read_files([tmp_path]) == {str(tmp_path / "p.yaml"): "one"}


@pytest.mark.parametrize("kind", ["missing", "binary", "dangling", "huge"])
def test_what_cannot_be_read_is_a_problem_that_names_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.yaml"
    match kind:
        case "missing":
            pass
        case "binary":
            path.write_bytes(b"\xff\xfe")
        case "dangling":
            path.symlink_to(tmp_path / "nowhere.yaml")
        case _:
            path.write_bytes(b" " * (10 * 1024 * 1024 + 1))

    with pytest.raises(PolicyError) as error:
        read_files([path])

    (problem,) = error.value.problems
    assert problem.code == "CS0008"
    assert problem.position.file == str(path)


@pytest.mark.parametrize("beside", ["name that is not UTF-8", "name too long", "named pipe"])
def test_what_no_file_can_be_read_by_is_a_problem_that_names_it_and_is_no_other(tmp_path: Path, beside: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "good.yaml").write_text("good")
    path = tmp_path / "sub" / "p.yaml"
    wrong, why = str(path), "a named pipe, and no file"
    match beside:
        case "name that is not UTF-8":
            path = Path(os.fsdecode(bytes(tmp_path) + b"/sub/caf\xe9.yaml"))
            path.write_text("bad")
            wrong, why = f"{tmp_path}/sub/caf\\xe9.yaml", "the name is not UTF-8; rename it"
        case "name too long":
            path.symlink_to("x" * 300)
            why = "file name too long"
        case _:
            os.mkfifo(path)

    with pytest.raises(PolicyError) as error:
        read_files([tmp_path])

    (problem,) = error.value.problems
    assert (problem.code, problem.position.file, problem.message) == ("CS0008", wrong, why)
    path.unlink()
    assert read_files([tmp_path]) == {str(tmp_path / "good.yaml"): "good"}


def test_the_digest_names_the_set_and_not_the_way_it_was_read() -> None:
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert len({digest(texts) for texts in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1b", "b": ""})}) == 5


def _config_map(directory: Path, version: str, text: str) -> None:
    """What the kubelet does: a new folder, and `..data` renamed onto it."""
    (directory / version).mkdir()
    (directory / version / "p.yaml").write_text(text)
    (directory / "..data_tmp").symlink_to(version)
    (directory / "..data_tmp").rename(directory / "..data")
    if not (directory / "p.yaml").is_symlink():
        (directory / "p.yaml").symlink_to("..data/p.yaml")


def _overwrite(directory: Path) -> None:
    (directory / "p.yaml").write_text("two")


def _rename_over(directory: Path) -> None:
    (directory / "new").write_text("two")
    (directory / "new").rename(directory / "p.yaml")


def _delete_and_create(directory: Path) -> None:
    (directory / "p.yaml").unlink()
    (directory / "p.yaml").write_text("two")


def _add_below(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "q.yaml").write_text("two")


def _replace_directory(directory: Path) -> None:
    directory.rename(directory.with_name("old"))
    directory.mkdir()
    (directory / "p.yaml").write_text("two")


@pytest.mark.parametrize(
    "change",
    [_overwrite, _rename_over, _delete_and_create, _replace_directory],
    ids=lambda change: change.__name__.strip("_"),
)
@pytest.mark.parametrize("root", ["directory", "file"])
def test_a_change_is_seen(tmp_path: Path, root: str, change: Callable[[Path], None]) -> None:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "p.yaml").write_text("one")

    assert "two" in _watch(directory if root == "directory" else directory / "p.yaml", lambda: change(directory))


def test_a_file_in_a_new_folder_is_seen(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("one")

    assert _watch(tmp_path, lambda: _add_below(tmp_path)) == ["one", "two"]


def test_a_config_map_swap_is_seen(tmp_path: Path) -> None:
    _config_map(tmp_path, "..1", "one")

    assert _watch(tmp_path, lambda: _config_map(tmp_path, "..2", "two")) == ["two"]


def _watch(root: Path, change: Callable[[], None]) -> list[str]:
    """The texts once they differ from those before the change."""

    async def scenario() -> list[str]:
        stop = asyncio.Event()
        before = digest(read_files([root]))
        changed = False
        async with asyncio.timeout(WITHIN):
            async for _ in changes([root], stop, poll=0.2):
                if not changed:  # the first wake-up shows that the watch is up
                    changed = True
                    change()
                    continue
                try:
                    texts = read_files([root])
                except PolicyError:
                    continue
                if digest(texts) != before and "two" in texts.values():
                    stop.set()
                    return sorted(texts.values())
        raise AssertionError("the change was not seen")

    return asyncio.run(scenario())


def test_watching_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async def scenario() -> int:
        stop = asyncio.Event()
        wakes = 0
        async with asyncio.timeout(WITHIN):
            async for _ in changes([tmp_path], stop, poll=0.2):
                wakes += 1
                stop.set()
        return wakes

    assert asyncio.run(scenario()) == 1
