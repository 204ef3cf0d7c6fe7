"""API keys: made once, kept as digests, read strictly."""

import pytest

from kandinsky.cli.main import main
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


def test_a_file_that_was_edited_by_hand_gets_a_line_of_its_own(tmp_path):
    file = tmp_path / "keys"
    first = add_key(file, "me")
    file.write_text(file.read_text().rstrip("\n"))
    second = add_key(file, "you")
    assert read_keys(file).owner_of(first) == "me"
    assert read_keys(file).owner_of(second) == "you"


def test_a_place_where_no_file_can_be(tmp_path):
    for place in (tmp_path, tmp_path / "no" / "keys"):
        with pytest.raises(ValueError, match="keys="):
            add_key(place, "me")
    with pytest.raises(ValueError, match="keys="):
        read_keys(tmp_path)


@pytest.mark.parametrize("key", ["", " ", "sk-", "\xe9", "\ud800", "a" * 100_000, None])
def test_what_is_no_key(tmp_path, key):
    add_key(tmp_path / "keys", "me")
    assert read_keys(tmp_path / "keys").owner_of(key) is None
