"""Text files of users: what is read, and what the error says of what is not."""

import codecs
import json

import pytest
from helpers import ROOT, SMALL, TINY

from kandinsky.batch.prompts import read_prompts
from kandinsky.checkpoint.conf import read_conf
from kandinsky.checkpoint.folder import weight_files
from kandinsky.checkpoint.load import read_config
from kandinsky.checkpoint.model_set import read_model_set, write_model_set
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError
from kandinsky.loading.settings import read_schedule
from kandinsky.training.settings import PretrainSettings, read_settings, settings_or_exit
from kandinsky.user_files.lines import MAX_LINE, MAX_TEXT, Line, each_line, is_utf8, read_json, read_lines, read_text


def written(folder, content):
    path = folder / "file.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a cat\na dog\n", ["a cat", "a dog"]),
        ("\ufeffa cat\r\n\r\na dog", ["a cat", "", "a dog"]),
        ("a\u2028b\x0bc\x0cd\x85e\x1cf\ng", ["a\u2028b\x0bc\x0cd\x85e\x1cf", "g"]),
        ("\ufeffone file\n\ufeffand another\n", ["one file", "and another"]),
        ("кот 🐦\n", ["кот 🐦"]),
        ("x" * (MAX_LINE - 1) + "\ny", ["x" * (MAX_LINE - 1), "y"]),
        ("", []),
    ],
)
def test_lines(tmp_path, content, lines):
    path = written(tmp_path, content)
    assert read_lines(path) == lines
    assert list(each_line(path)) == [Line(number, line) for number, line in enumerate(lines, 1)]


def test_a_whole_text(tmp_path):
    assert read_text(written(tmp_path, "\ufeffa: 1\r\nb: 'é'\n")) == "a: 1\nb: 'é'\n"


BAD = {
    "latin-1": ("a cat\ncafé\n".encode("latin-1"), "is not UTF-8: invalid continuation byte at byte 9", 2),
    "surrogate": (b"a cat\n\xed\xa0\x80\n", "is not UTF-8: invalid continuation byte at byte 6", 2),
    "cut off": ("a cat\nи".encode()[:-1], "is not UTF-8: unexpected end of data at byte 6", 2),
    "null": (b"a\0cat\n", "is no text, or not UTF-8: null byte at byte 1", 1),
    "UTF-16 without a mark": ("cat\n".encode("utf-16-le"), "is no text, or not UTF-8: null byte at byte 1", 1),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_text(tmp_path, case):
    content, fault, line = BAD[case]
    path = written(tmp_path, content)
    for read in (read_lines, read_text):
        with pytest.raises(ValueError, match=rf"^prompts='x' {fault} \(line {line}\)$"):
            read(path, name="prompts='x'")
        with pytest.raises(ValueError, match=f"file.txt {fault}"):
            read(path)
    assert next(each for each in each_line(path) if each.fault) == Line(line, "", fault)


def test_other_lines_stand_beside_a_bad_one(tmp_path):
    long = b"x" * (2 * MAX_LINE + 7)
    path = written(tmp_path, b"one\n\xff\n" + long + b"\n" + long + b"\nlast\n" + long)
    lines = list(each_line(path))
    assert [line.text for line in lines] == ["one", "", "", "", "last", ""]
    too_long = f"is longer than {MAX_LINE} bytes"
    assert [line.fault for line in lines[2:]] == [too_long, too_long, None, too_long]
    with pytest.raises(ValueError, match=r"at byte 4 \(line 2\)"):
        read_lines(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_files_with_the_mark_of_another_encoding(tmp_path, encoding):
    path = written(tmp_path, "\ufeffa cat\n".encode(encoding))
    name = encoding[:6].upper()
    for read in (read_text, read_lines, lambda path: list(each_line(path))):
        with pytest.raises(ValueError, match=f"file.txt is not UTF-8: its first bytes are the mark of {name}; save"):
            read(path)
    assert codecs.BOM_UTF32_LE.startswith(codecs.BOM_UTF16_LE)  # why their order matters


def test_a_text_has_an_end(tmp_path):
    with pytest.raises(ValueError, match=f"is longer than {MAX_TEXT} bytes"):
        read_text(written(tmp_path, b" " * (MAX_TEXT + 1)))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.txt")


def test_json(tmp_path):
    assert read_json(written(tmp_path, '\ufeff{"é": [1]}\r\n')) == {"é": [1]}
    for content in ("{", "", "[" * 100_000, "1" * 5000, '{"a": 1} 2'):
        with pytest.raises(ValueError, match=r"file.txt is not JSON: "):
            read_json(written(tmp_path, content))
    with pytest.raises(ValueError, match=r"file.txt is not UTF-8"):
        read_json(written(tmp_path, b'{"a": "\xff"}'))


def test_what_utf8_holds():
    assert is_utf8("кот 🐦 \0 \udbff\udfff".encode("utf-16", "surrogatepass").decode("utf-16"))
    assert not is_utf8(json.loads('"\\ud800"'))
    assert not is_utf8("\udcff")


def read_index(path):
    return weight_files(path.parent)


READERS = {
    "p.txt": lambda path: read_prompts(path, {}, model_set=FLASH_512),
    "p.jsonl": lambda path: read_prompts(path, {}, model_set=FLASH_512),
    "conf.yaml": read_conf,
    "train.yaml": lambda path: read_settings(PretrainSettings, [str(path)]),
    "model_set.json": lambda path: read_model_set(path.parent),
    "config.json": lambda path: read_config(path.parent, "model_type", "t5"),
    "x.safetensors.index.json": read_index,
    "scheduler_config.json": read_schedule,
}
"""Everything that reads a text file of a user (`training.encode` has a test of its own), by a name that it takes."""


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"caf\xe9": 1}\n', "is not UTF-8: .* at byte 5"), (b"{\0}\n", "null byte at byte 1"),
     ("{}\n".encode("utf-16"), "is not UTF-8: .*UTF-16")],
)  # fmt: skip
def test_every_reader_names_file_and_byte(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((ValueError, CheckpointError), match=rf"(?s){name}.*{message}"):
        READERS[name](path)


def test_every_reader_takes_a_mark_and_crlf(tmp_path):
    """As an editor of Windows leaves them: what is read is what is read without."""

    def copied(source, name):
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + source.read_bytes().replace(b"\n", b"\r\n"))
        return tmp_path / name

    scheduler = TINY / "scheduler" / "scheduler_config.json"
    assert read_schedule(copied(scheduler, "scheduler_config.json")) == read_schedule(scheduler)
    copied(TINY / "text_encoder" / "config.json", "config.json")
    assert READERS["config.json"](tmp_path / "config.json")["d_model"] == 64
    write_model_set(tmp_path, SMALL)
    copied(tmp_path / "model_set.json", "model_set.json")
    assert read_model_set(tmp_path) == SMALL
    conf, train = tmp_path / "conf.yaml", ROOT / "docs" / "training" / "tiny_pretrain.yaml"
    conf.write_text("resolution: 512\nvae:\n  checkpoint_path: é\n", encoding="utf-8")
    assert read_conf(copied(conf, "windows.yaml")) == read_conf(conf)
    assert read_settings(PretrainSettings, [str(copied(train, "train.yaml"))]) == read_settings(
        PretrainSettings, [str(train)]
    )


@pytest.mark.parametrize("text", ["a: [", "a: \x07", "a: 2026-99-99", "[" * 600])
def test_yaml_that_is_none(tmp_path, text):
    for name in ("conf.yaml", "train.yaml"):
        with pytest.raises(ValueError, match=rf"{name}.* is not YAML: "):
            READERS[name](written(tmp_path, text).rename(tmp_path / name))


def test_trainers_tell_what_is_wrong_with_a_file(tmp_path, capsys):
    for path in (written(tmp_path, b"steps: \xff"), tmp_path / "none.yaml"):
        with pytest.raises(SystemExit) as ended:
            settings_or_exit(PretrainSettings, [str(path)])
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "a/b.safetensors"])
def test_an_index_names_files_beside_it(tmp_path, name):
    path = tmp_path / "x.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"index.json names '.*': allowed are files beside it"):
        read_index(path)
    for content in ("{}", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        path.write_text(content)
        with pytest.raises(CheckpointError, match="is not an index of weights"):
            read_index(path)
