"""API keys: made once, kept as digests, read strictly."""

import pytest

from kandinsky.cli.main import main
from kandinsky.cli.serve import is_loopback
from kandinsky.serving.keys import EVERYBODY, Keys, add_key, read_keys


def test_a_key_is_printed_once_and_kept_nowhere(tmp_path, capsys):
    file = tmp_path / "keys"
    assert main(["serve", "--keys", str(file), "--add-key", "me"]) == 0
    key = capsys.readouterr().out.strip()
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_keys(file).owner_of(key) == "me"
    assert read_keys(file).owner_of(key[:-1]) is None
    assert read_keys(file).owner_of(None) is None
    other = add_key(file, "you")
    assert read_keys(file).owner_of(other) == "you"
    with pytest.raises(ValueError, match="a key of this name"):
        add_key(file, "me")
    with pytest.raises(ValueError, match="allowed are up to 64"):
        add_key(file, "a b")


@pytest.mark.parametrize("text", ["", "# nobody", "me 123", f"me {'a' * 64}\nme {'b' * 64}", "\xff"])
def test_a_file_that_is_none(tmp_path, text):
    (tmp_path / "keys").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="keys="):
        read_keys(tmp_path / "keys")


def test_without_keys_everybody_is_the_same():
    assert Keys().owner_of("any") == Keys().owner_of(None) == EVERYBODY


@pytest.mark.parametrize(("host", "alone"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])  # noqa: S104
def test_loopback(host, alone):
    assert is_loopback(host) is alone


def test_a_public_address_needs_keys(tmp_path, capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)]) == 2  # noqa: S104
    assert "lets others in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--keep", "0"], ["--max-body", "-1"], ["--port", "99999"]])
def test_wrong_numbers(wrong, tmp_path, capsys):
    assert main(["serve", "--data", str(tmp_path), *wrong]) == 2
    assert "allowed is" in capsys.readouterr().err
