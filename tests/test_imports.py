"""What an import loads, and which room may know of which: imports go down the floors, and never in a circle."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import kandinsky
from kandinsky.loading.components import load_tokenizer

PACKAGE = Path(__file__).parents[1] / "kandinsky"
OWN_ROOM = {
    "flash_attn": {"kandinsky.model.attention"},
    "flash_attn_interface": {"kandinsky.model.attention"},
    "triton": {
        "kandinsky.model.float8_operands",
        "kandinsky.model.kernels",
        "kandinsky.model.triton_attention",
        "kandinsky.vae.kernels",
        "kandinsky.vae.float8_convolution",
    },
    "transformers": {
        "kandinsky.audio.encoder",
        "kandinsky.loading.components",
        "kandinsky.checkpoint.random_weights",
        "kandinsky.training.world.text",
    },
    "diffusers": {
        "kandinsky.audio",
        "kandinsky.loading.components",
        "kandinsky.checkpoint.random_weights",
        "kandinsky.training.world.vae",
    },
    "imageio_ffmpeg": {"kandinsky.ffmpeg.program"},
    "fastapi": {"kandinsky.serving"},
    "starlette": {"kandinsky.serving"},
    "uvicorn": {"kandinsky.serving.server"},
    "ray": {"kandinsky.serving.ray"},
    "prometheus_client": {"kandinsky.serving.metrics"},
    "accelerate": {"kandinsky.training"},
    "peft": {"kandinsky.training"},
    "bitsandbytes": {"kandinsky.training.optimiser"},
}
"""The only modules (or folders) that may import a heavy package."""
FLOORS = {
    "kandinsky.errors": 1,
    "kandinsky.config": 1,
    "kandinsky.atomic": 1,
    "kandinsky.sampler": 1,
    "kandinsky.vae": 1,
    "kandinsky.ffmpeg": 1,
    "kandinsky.progress": 2,
    "kandinsky.video_shape": 2,
    "kandinsky.known": 2,
    "kandinsky.model": 2,
    "kandinsky.text": 2,
    "kandinsky.user_files": 2,
    "kandinsky.interpolate": 2,
    "kandinsky.checkpoint": 3,
    "kandinsky.output": 3,
    "kandinsky.request": 4,
    "kandinsky.parallel": 4,
    "kandinsky.memory": 4,
    "kandinsky.loading": 5,
    "kandinsky.audio": 6,
    "kandinsky.runner": 6,
    "kandinsky.extend": 6,
    "kandinsky.pipeline": 6,
    "kandinsky.training": 6,
    "kandinsky.factory": 7,
    "kandinsky.batch": 7,
    "kandinsky.serving": 8,
    "kandinsky.cli": 8,
    "kandinsky.__main__": 9,
    "kandinsky": 9,
}
"""Of each folder and single file. A room imports rooms on lower floors; on its own floor only what `BESIDE` names."""
BESIDE = {
    "kandinsky.known": {"kandinsky.video_shape"},
    "kandinsky.extend": {"kandinsky.runner"},
    "kandinsky.pipeline": {"kandinsky.runner", "kandinsky.extend"},
    "kandinsky.cli": {"kandinsky.serving"},
}
ALONE = {
    "kandinsky.vae": set(),
    "kandinsky.ffmpeg": set(),
    "kandinsky.interpolate": {"kandinsky.config", "kandinsky.errors", "kandinsky.ffmpeg"},
    "kandinsky.sampler": set(),
    "kandinsky.errors": set(),
    "kandinsky.config": set(),
    "kandinsky.atomic": set(),
    "kandinsky.model": {"kandinsky.config"},
    "kandinsky.known": {"kandinsky.config", "kandinsky.errors", "kandinsky.sampler", "kandinsky.video_shape"},
}
"""Rooms that may import nothing of ours besides themselves and these."""
MOST_SINGLE_FILES = 12


@cache
def files() -> dict[str, Path]:
    """Each module's name and file."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


@cache
def imports() -> dict[str, frozenset[str]]:
    """What each module imports, wherever it stands: lazily, for types, and by `from kandinsky import x`."""
    found = {}
    for name, path in files().items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                assert node.module is not None
                # Of `from x import y`, y may be a module or a name in x.
                names |= {
                    full if (full := f"{node.module}.{alias.name}") in files() else node.module for alias in node.names
                }
        found[name] = frozenset(names)
    return found


@cache
def ours() -> dict[str, frozenset[str]]:
    """Of these, the package's own."""
    return {name: frozenset(n for n in names if n in files()) - {name} for name, names in imports().items()}


def room_of(module: str) -> str:
    """The folder or single file of `FLOORS` that a module belongs to."""
    return ".".join(module.split(".")[:2])


def test_every_room_has_a_floor():
    assert {room_of(module) for module in files()} == set(FLOORS)
    single = [path for path in PACKAGE.iterdir() if path.suffix == ".py"]
    assert len(single) <= MOST_SINGLE_FILES


def test_every_room_is_described():
    """In the table of rooms, where whoever looks for one begins."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {room.removeprefix("kandinsky.") for room in FLOORS} - {"kandinsky", "__main__"}
    missing = [room for room in sorted(rooms) if not any(f"| `{room}{end}` |" in page for end in ("/", ".py"))]
    assert missing == []


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down(room):
    """`kandinsky/__init__.py` hands names on and is imported by nobody, so it stands on top."""
    for module, names in ours().items():
        if room_of(module) != room:
            continue
        for name in names:
            other = room_of(name)
            lower = FLOORS[other] < FLOORS[room]
            assert other == room or lower or other in BESIDE.get(room, ()), f"{module} imports {name}"


@pytest.mark.parametrize("room", ALONE)
def test_rooms_that_stand_alone(room):
    for module, names in ours().items():
        if room_of(module) == room:
            assert {room_of(name) for name in names} <= ALONE[room] | {room}, module


def test_every_file_has_tests_of_its_name():
    """Rule 5 of the house; an `__init__` that hands names on has none."""
    tests = Path(__file__).parent
    missing = [
        path.relative_to(PACKAGE)
        for path in files().values()
        if path.name != "__init__.py"
        and not (tests / path.relative_to(PACKAGE).with_name(f"test_{path.stem.strip('_')}.py")).exists()
    ]
    assert missing == []


def test_nobody_imports_training():
    for module, names in ours().items():
        users = {name for name in names if room_of(name) == "kandinsky.training"}
        assert not users or room_of(module) == "kandinsky.training", f"{module} imports {users}"


def test_no_circle():
    """Within folders too; the package's `__init__` files hand names on, and count."""
    left = {module: set(names) for module, names in ours().items()}
    while left:
        free = {module for module, names in left.items() if not names}
        assert free, f"a circle among {sorted(left)}"
        left = {module: names - free for module, names in left.items() if module not in free}


def test_the_test_sees_every_kind_of_import():
    """Lazy ones, those for types, and a module that is imported like a name."""
    assert "kandinsky.cli.launch" in ours()["kandinsky.cli.common"]  # within a function
    assert "kandinsky.output.result" in ours()["kandinsky.cli.common"]  # for types
    assert "kandinsky.checkpoint.safetensors_file" in ours()["kandinsky.checkpoint.convert"]  # from a folder


@pytest.mark.slow
def test_the_servers_process_has_no_torch():
    """It touches no GPU, and is there at once."""
    modules = "kandinsky.serving.http, kandinsky.serving.server, kandinsky.cli.serve"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"


def test_import_is_light():
    heavy = ["torch", *OWN_ROOM]
    code = f"import sys, kandinsky; print([name for name in {heavy!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"]])
def test_help_is_light(arguments):
    """Nothing but the standard library and ours."""
    code = (
        "import contextlib, sys\n"
        "before = {*sys.modules}\n"
        "from kandinsky.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
        "new = {name.split('.')[0] for name in {*sys.modules} - before}\n"
        "print(*(new - {'kandinsky', *sys.stdlib_module_names}), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: kandinsky" in run.stdout
    assert run.stderr.split() == []


@pytest.mark.slow
def test_a_request_and_planning_import_nothing_heavy(tmp_path, monkeypatch):
    """transformers and diffusers, and what PyTorch's meta device may import, take longer than our weights.

    Neither do sizes: those of the planner, of a card that is too small too, nor those of float8 weights not yet read.
    A process before this one has kept the tokenizer. What PyTorch imports itself does not count.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_tokenizer(PACKAGE.parent / "weights" / "tiny" / "tokenizer")
    heavy = ["transformers", "diffusers", "huggingface_hub", "google.protobuf", "sentencepiece", "jinja2", "yaml"]
    heavy += ["accelerate", "peft", "psutil", "sympy", "torch._dynamo", "torch.distributed.launcher", "httpx"]
    code = (
        f"import sys, torch, kandinsky; heavy = {{*{heavy!r}}} - {{*sys.modules}}; "
        "from kandinsky.cli.main import main; from kandinsky.model.quantised import quantise_weight; "
        f"main(['generate', '--weights', 'weights/tiny', '--device', 'cpu', '--time-length', '0', '--text', 'a cat', "
        f"'--quiet', '--save-path', {str(tmp_path / 'a.png')!r}]); "
        "quantise_weight(torch.empty(2, 2, device='meta')); "
        "main(['plan', '--weights', 'weights/tiny', '--gpu-memory', '0.01', '--host-memory', '8']); "
        "print(heavy & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "nothing fits" in run.stderr
    assert run.stdout.strip() == "set()"
    assert (tmp_path / "a.png").is_file()


def test_public_names():
    assert dir(kandinsky) == sorted(kandinsky.__all__)
    for name in kandinsky.__all__:
        assert getattr(kandinsky, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kandinsky.nothing  # noqa: B018


@pytest.mark.parametrize("package", OWN_ROOM)
def test_heavy_packages_stay_in_their_room(package):
    users = {name for name, names in imports().items() if any(n.split(".")[0] == package for n in names)}
    assert users
    for user in users:
        assert any(user == room or user.startswith(room + ".") for room in OWN_ROOM[package]), user
