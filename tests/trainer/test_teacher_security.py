"""What the environment says of certificates and tokens, and what is said when it cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.teacher.address import check_address
from trainer.teacher.security import access_from_environment


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CERT", "KEY", "TOKEN_FILE"):
        monkeypatch.delenv(f"TRAINER_TEACHER_{name}", raising=False)


def test_nothing_set_is_plain_text_without_a_token() -> None:
    access = access_from_environment(encrypted=False)
    assert (access.credentials, access.metadata()) == (None, ())


def test_the_public_authorities_are_trusted_by_default() -> None:
    assert access_from_environment(encrypted=True).credentials is not None


def test_a_token_is_read_anew_and_kept_while_its_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("# of this job\n\n first-token \nanother\n")
    monkeypatch.setenv("TRAINER_TEACHER_TOKEN_FILE", str(file))
    access = access_from_environment(encrypted=False)
    assert access.metadata() == (("authorization", "Bearer first-token"),)
    file.write_text("second\n")
    assert access.metadata() == (("authorization", "Bearer second"),)
    file.unlink()
    assert access.metadata() == (("authorization", "Bearer second"),)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CA": "none"}, "TRAINER_TEACHER_CA: there is no file .*none"),
        ({"CA": "text"}, "text: is no PEM file"),
        ({"CERT": "text"}, "CERT and TRAINER_TEACHER_KEY go together"),
        ({"KEY": "text"}, "CERT and TRAINER_TEACHER_KEY go together"),
        ({"TOKEN_FILE": "none"}, "TRAINER_TEACHER_TOKEN_FILE: there is no file"),
        ({"TOKEN_FILE": "comment"}, "comment: holds no token"),
        ({"TOKEN_FILE": "umlaut"}, "umlaut: cannot be read as a token file"),
    ],
)
def test_files_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, text in (("text", "secret-text"), ("comment", "# nothing\n"), ("umlaut", "schl\u00fcssel")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, file in variables.items():
        monkeypatch.setenv(f"TRAINER_TEACHER_{name}", str(tmp_path / file))
    with pytest.raises(BadInput, match=message) as caught:
        access_from_environment(encrypted=True)
    assert "secret" not in str(caught.value)


def test_a_unix_socket_is_plain() -> None:
    with pytest.raises(BadInput, match="a Unix socket is plain"):
        check_address("grpcs://unix:/tmp/socket")
