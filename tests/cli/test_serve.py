"""`kandinsky serve`: arguments that mean nothing are refused before anything is opened."""

import pytest

from kandinsky.cli.main import main
from kandinsky.cli.serve import import_extra, is_loopback
from kandinsky.serving.keys import read_keys


@pytest.mark.parametrize(("host", "alone"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])  # noqa: S104
def test_loopback(host, alone):
    assert is_loopback(host) is alone


def test_a_public_address_needs_keys(tmp_path, capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)]) == 2  # noqa: S104
    assert "lets others in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        ["--workers", "0"],
        ["--keep", "0"],
        ["--max-body", "-1"],
        ["--port", "99999"],
        ["--max-body", "inf"],
        ["--max-body", "nan"],
        ["--keep", "inf"],
        ["--keep", "1e300"],
        ["--disk", "inf"],
        ["--disk", "1e300"],
        ["--max-queue", "0"],
        ["--max-jobs-per-key", "-1"],
        ["--max-prompt", "0"],
        ["--max-seconds", "0"],
        ["--gpus-per-worker", "0"],
    ],
)
def test_wrong_numbers(wrong, tmp_path, capsys):
    assert main(["serve", "--data", str(tmp_path), *wrong]) == 2
    assert "allowed is" in capsys.readouterr().err


def test_nothing_was_made_for_a_wrong_number(tmp_path):
    assert main(["serve", "--data", str(tmp_path / "data"), "--keep", "0"]) == 2
    assert not (tmp_path / "data").exists()


def test_a_key_needs_a_file_and_a_name(tmp_path, capsys):
    assert main(["serve", "--add-key", "me"]) == 2
    assert "--add-key needs --keys" in capsys.readouterr().err
    for name in ("", "a b", "a\nb", "x" * 65, "../x\0"):
        assert main(["serve", "--keys", str(tmp_path / "keys"), "--add-key", name]) == 2
        assert "allowed are up to 64" in capsys.readouterr().err
    assert main(["serve", "--keys", str(tmp_path), "--add-key", "me"]) == 2
    assert "keys=" in capsys.readouterr().err
    assert main(["serve", "--keys", str(tmp_path / "keys"), "--add-key", "me"]) == 0
    assert read_keys(tmp_path / "keys").owner_of(capsys.readouterr().out.strip()) == "me"


def test_keys_that_cannot_be_read_end_it(tmp_path, capsys):
    assert main(["serve", "--data", str(tmp_path / "data"), "--port", "0", "--keys", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken(tmp_path, capsys):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "--data", str(tmp_path / "data"), "--port", port]) == 2
    assert f"port={port}" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_package_that_is_missing_has_its_command():
    with pytest.raises(ValueError, match=r"pip install 'kandinsky4\[serve\]'"):
        import_extra("no_such_package", "serve")


def test_an_address_that_is_none():
    for host in ("no.such.name.invalid", ""):
        with pytest.raises(ValueError, match="host="):
            is_loopback(host)
