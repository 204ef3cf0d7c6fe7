"""How well a DiT does what prompts say: figures of clips that were drawn, and a table of a whole evaluation."""

import json

import pytest
import torch
from helpers import just_saved
from world_helpers import CPU, TEXT_TOKENS, world_weights

from kandinsky.training.world.evaluate import Evaluation, accuracy, main, score, some_scenes, table
from kandinsky.training.world.grammar import ATTRIBUTES, split

pytestmark = pytest.mark.filterwarnings("ignore:prompt has")  # the tiny tokenizer cuts words to letters


def test_scenes_are_held_out_ones_in_a_fixed_order():
    held_out = split()[1]
    assert some_scenes(5) == some_scenes(9)[:5]
    assert set(some_scenes(490)) == set(held_out)
    assert some_scenes(5) != held_out[:5]


def test_shares_of_clips_that_agree(scenes, clips):
    """Three of four show what was asked for; the last one shows another's."""
    asked = [*scenes[:3], scenes[4]]
    found = accuracy(asked, list(clips[:4]))
    assert found["all"] == 0.75
    for name in ATTRIBUTES:
        assert found[name] == (1 if getattr(scenes[3], name) == getattr(scenes[4], name) else 0.75)


def test_a_row(scenes, clips):
    row = score(scenes[:4], list(clips[:4]), list(clips[:4]))
    assert row.keys() == {*ATTRIBUTES, "all", "sharpness", "frechet"}
    assert row["all"] == 1
    assert abs(row["frechet"]) < 1e-4
    assert row["sharpness"] > 0.3


def test_table():
    rows = {"one": {"colour": 0.5, "sharpness": 0.1234, "frechet": 12.345}}
    assert table(rows).splitlines() == [
        "| | colour | sharpness | frechet |",
        "|---|---|---|---|",
        "| one | 50.0% | 0.123 | 12.3 |",
    ]


def test_the_weights_must_be_the_worlds(tmp_path):
    with pytest.raises(ValueError, match=r"has no model_set\.json; allowed is the synthetic world's folder"):
        Evaluation(tmp_path, CPU, scenes=some_scenes(1), seconds=1)


def test_an_evaluation_has_the_model_sets_clips(weights):
    evaluation = Evaluation(weights, CPU, scenes=some_scenes(3), seconds=1)
    assert evaluation.text.shape == (3, TEXT_TOKENS, 64)
    one, same, other = (torch.stack(evaluation.rendered(seed=seed)) for seed in (1, 1, 2))
    assert one.shape == (3, 9, 32, 32, 3)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = evaluation.noise(2, 4, torch.Generator().manual_seed(0))
    assert (noise.shape, noise.dtype) == ((4, 2, 3, 4, 4, 16), torch.float32)


@pytest.mark.slow
def test_a_whole_evaluation(teacher, tmp_path, capsys):
    """Rows of what was drawn, of the teacher with many steps and few, and of the student; of weights just saved."""
    (tmp_path / "w").mkdir()
    weights = just_saved(world_weights(tmp_path / "w"))
    arguments = ["--weights", str(weights), "--teacher", str(teacher), "--student", str(teacher)]
    sizes = ["--prompts", "2", "--seconds", "1", "--device", "cpu"]
    main([*arguments, *sizes, "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert list(rows) == ["rendered, through the VAE", "teacher, 50 steps", "teacher, 4 steps", "student, 4 steps"]
    assert capsys.readouterr().out.strip() == table(rows)
    assert rows["teacher, 4 steps"] == rows["student, 4 steps"]
    assert rows["teacher, 50 steps"] != rows["teacher, 4 steps"]
