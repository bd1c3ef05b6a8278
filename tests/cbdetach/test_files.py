"""Where results are written: refused before the work, in one sentence that names the option; nothing is left half."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cbdetach.errors import InputError
from cbdetach.files import require_writable, told, whole_file


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_can_be_written_is_not_refused(tmp_path: Path, what: str) -> None:
    require_writable(tmp_path / "not" / "yet", what=what)
    assert list(tmp_path.iterdir()) == []
    there = tmp_path / "there"
    if what == "folder":
        there.mkdir()
    else:
        there.touch()
    require_writable(there, what=what)


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    said = f"--json: {tmp_path} cannot be written (it is a folder); choose another file."
    with pytest.raises(InputError, match=re.escape(said)):
        require_writable(tmp_path, "--json", what="file")
    with pytest.raises(
        InputError, match=r"^-o/--out: .*a cannot be written \(it is a file\); choose another folder\.$"
    ):
        require_writable(file)
    for what in ("file", "folder"):
        with pytest.raises(
            InputError, match=rf"a/b cannot be written \({file}: it is a file\); choose another {what}\.$"
        ):
            require_writable(file / "b", what=what)


def test_what_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # for root everything may
    for what in ("file", "folder"):
        with pytest.raises(InputError, match=rf"cannot be written \({tmp_path}: it may not be written\); choose"):
            require_writable(tmp_path / "b", what=what)


def test_what_the_system_says_while_writing_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"^-o/--out: .*a cannot be written \(Is a directory\); choose another"):
        with told(tmp_path / "a", what="file"), whole_file(tmp_path / "a") as temporary:
            temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
