"""Types as a user sees them: of every kind of result, and of what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent / "types"


@pytest.fixture(scope="module")
def errors():
    """The numbers of lines in which pyright finds an error, and what it says, of each script."""
    program = shutil.which("pyright", path=Path(sys.executable).parent) or shutil.which("pyright")
    assert program is not None, "pyright is one of the development requirements"
    scripts = sorted(map(str, SCRIPTS.glob("*.py")))
    command = [program, "--pythonpath", sys.executable, "--outputjson", *scripts]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(scripts)
    found = {Path(script).name: {} for script in scripts}
    for problem in report["generalDiagnostics"]:
        found[Path(problem["file"]).name][problem["range"]["start"]["line"] + 1] = problem["message"]
    return found


def test_every_kind_of_result_has_its_type(errors):
    assert errors["user_script.py"] == {}


def test_what_is_wrong_is_found(errors):
    """So that a script without errors means something."""
    lines = (SCRIPTS / "wrong_script.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert set(errors["wrong_script.py"]) == wrong, errors["wrong_script.py"]
