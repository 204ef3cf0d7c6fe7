"""A teacher's own latents as training data."""

import pytest
from helpers import SMALL, TINY, just_saved, own_weights

from kandinsky.training.data import ShardDataset, ids_in
from kandinsky.training.teacher_data import main


def test_a_teachers_own_latents_are_data(data, teacher, tmp_path, capsys):
    """With the prompts and shapes of the clips that they stand for; a seed gives the same."""
    weights = just_saved(own_weights(tmp_path / "w", SMALL))
    arguments = ["--weights", str(weights), "--teacher", str(teacher), "--data", str(data), "--device", "cpu"]
    for name, seed in (("one", "0"), ("same", "0"), ("other", "1")):
        main([str(tmp_path / name), *arguments, "--clips", "5", "--steps", "3", "--batch-size", "2", "--seed", seed])
    assert f"5 clips in {tmp_path / 'one'}" in capsys.readouterr().out
    made, same, other = (ShardDataset(tmp_path / name) for name in ("one", "same", "other"))
    assert [item.id for item in made.items] == [f"0-{number}" for number in range(5)]
    assert {item.shape for item in made.items} <= {item.shape for item in ShardDataset(data).items}
    assert {item.caption for item in made.items} <= {item.caption for item in ShardDataset(data).items}
    latents, text = made.read(made.items)
    assert all(latents.isfinite().all() for latents in latents)
    assert all((one == two).all() for one, two in zip(latents, same.read(same.items)[0], strict=True))
    assert other.items[0].id == "1-0"
    assert text[0].shape == (6, 64)


def test_the_same_clips_are_not_added_twice(data, teacher, tmp_path, capsys):
    """Told before anything is loaded; those of another seed are others."""
    arguments = ["--weights", str(TINY), "--teacher", str(teacher), "--data", str(data), "--device", "cpu"]
    some = ["--clips", "2", "--steps", "1", "--batch-size", "2"]
    main([str(tmp_path), *arguments, *some])
    with pytest.raises(SystemExit):
        main([str(tmp_path), *arguments, *some, "--teacher", "/nowhere"])
    assert "has clips of seed 0; allowed is another seed or a new folder" in capsys.readouterr().err
    main([str(tmp_path), *arguments, *some, "--seed", "10"])
    assert ids_in(tmp_path) == {"0-0", "0-1", "10-0", "10-1"}
