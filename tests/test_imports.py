"""What an import loads, and which module may know of which."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import kandinsky

PACKAGE = Path(__file__).parents[1] / "kandinsky"
OWN_ROOM = {
    "flash_attn": {"kandinsky.model.attention"},
    "flash_attn_interface": {"kandinsky.model.attention"},
    "triton": {"kandinsky.model.kernels", "kandinsky.model.triton_attention", "kandinsky.vae.kernels"},
    "transformers": {"kandinsky.text.encoder", "kandinsky.checkpoint.random_weights", "kandinsky.training.world.text"},
    "diffusers": {"kandinsky.vae.autoencoder", "kandinsky.checkpoint.random_weights", "kandinsky.training.world.vae"},
    "imageio_ffmpeg": {"kandinsky.output.video", "kandinsky.training.encode"},
    "gradio": {"kandinsky.cli.web"},
}
"""The only modules that may import a heavy package."""
FORBIDDEN = {
    "kandinsky.config": {"kandinsky."},
    "kandinsky.video_shape": {"kandinsky.model", "kandinsky.sampler", "kandinsky.pipeline"},
    "kandinsky.sampler": {"kandinsky."},
    "kandinsky.model": {
        "kandinsky.checkpoint.load",
        "kandinsky.parallel.boxes",
        "kandinsky.parallel.apply",
        "kandinsky.parallel.ranks",
        "kandinsky.pipeline",
        "kandinsky.factory",
    },
    "kandinsky.pipeline": {"kandinsky.factory", "kandinsky.checkpoint.locate", "kandinsky.cli.main"},
    "kandinsky": {"kandinsky.training"},
}
"""What the modules below a name must not import: imports go one way."""


@cache
def modules() -> dict[str, set[str]]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names.add(node.module)
        found[name] = names
    return found


def test_import_is_light():
    heavy = list(OWN_ROOM)
    code = f"import sys, kandinsky; print([name for name in {heavy!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_loading_imports_nothing_heavy():
    """transformers' and diffusers' models, and what PyTorch's meta device may import, take longer than our weights."""
    heavy = ["transformers.modeling_utils", "diffusers", "sympy"]
    code = (
        f"import sys, torch, kandinsky; heavy = {{*{heavy!r}}} - {{*sys.modules}}; "
        "pipe = kandinsky.get_T2V_pipeline('cpu', cache_dir='weights/tiny', prompt='a cat', progress=False); "
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert run.stdout.strip() == "[]"


def test_sizes_import_nothing_heavy():
    """Neither those of the planner, of a card that is too small too, nor those of float8 weights not yet read."""
    code = (
        "import sys, torch; from kandinsky.cli import main; from kandinsky.model.rows import quantise_weight; "
        "heavy = {'sympy', 'torch._dynamo'} - {*sys.modules}; "
        "quantise_weight(torch.empty(2, 2, device='meta')); "
        "main(['plan', '--weights', 'weights/tiny', '--gpu-memory', '0.01', '--host-memory', '8']); "
        "print(heavy & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "nothing fits" in run.stderr
    assert run.stdout.strip() == "set()"


def test_public_names():
    for name in kandinsky.__all__:
        assert getattr(kandinsky, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kandinsky.nothing  # noqa: B018


@pytest.mark.parametrize("package", OWN_ROOM)
def test_heavy_packages_stay_in_their_room(package):
    users = {name for name, names in modules().items() if any(n.split(".")[0] == package for n in names)}
    assert users <= OWN_ROOM[package]


@pytest.mark.parametrize("prefix", FORBIDDEN)
def test_imports_go_one_way(prefix):
    for name, names in modules().items():
        if (name == prefix or name.startswith(prefix + ".")) and not name.startswith("kandinsky.training"):
            wrong = [n for n in names for bad in FORBIDDEN[prefix] if n.startswith(bad)]
            assert not wrong, f"{name} imports {wrong}"
