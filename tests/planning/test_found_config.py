"""The config file that a search writes: it loads, and is the original in the layout found."""

import pathlib

import pytest

from t5jax.config import read_config, to_text
from t5jax.errors import ConfigError
from t5jax.planning.candidates import Candidate
from t5jax.planning.found_config import check_found_config, write_found_config
from t5jax.planning.search import SearchResult, Trial
from t5jax.planning.topology import parse_topology

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PLAN = {
    "fits": True, "memory_gb": 9.125, "hbm_gb": 16.9, "step_seconds": 0.4321, "mfu": 0.456,
    "days": 5.001,
}  # fmt: skip


def found(config, plan=PLAN):
    layout = Candidate(data=2, fsdp=8, tensor=1, num_microbatches=4, remat="dots", unrolled=False)
    trial = Trial(candidate=layout, rough_seconds=0.5, rough_bytes=1e10, plan=plan)
    return SearchResult(
        config=config, topology=parse_topology("v5e:4x4"), trials=[trial], seconds=70.0
    )


@pytest.mark.parametrize("folder", ["", "deep/er"])
def test_it_is_the_original_in_the_layout_found(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text((CONFIGS / "t5_1_1_base_c4.py").read_text())
    flags = ["--train.seed", "7", "--model.remat", "full"]
    original = read_config("mine.py", flags)
    result = found(original)
    file = str(pathlib.Path(folder) / "found.py")
    write_found_config(file, "mine.py", flags, result)
    loaded = read_config(file)
    assert to_text(loaded) == to_text(result.trials[0].candidate.apply(original))
    assert loaded.train.seed == 7
    assert (loaded.mesh.fsdp, loaded.model.remat, loaded.model.unroll_layers) == (8, "dots", 1)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # its original is beside it, wherever it is read from
    assert to_text(read_config(str(tmp_path / file))) == to_text(loaded)


def test_its_header_says_what_is_predicted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = str(CONFIGS / "t5_1_1_base_c4.py")
    write_found_config("found.py", original, [], found(read_config(original)))
    header = (tmp_path / "found.py").read_text().split('"""')[1]
    assert "t5jax train found.py" in header
    assert "v5e:4x4, 16 chips: data 2 x fsdp 8, microbatches 4, remat dots, scanned" in header
    assert "432.1 ms a step, MFU 45.6%, 9.12 of 16.90 GB a device, 5.00 days" in header


def test_a_module_stays_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "t5jax.configs.t5_1_1_base_c4"
    write_found_config("found.py", name, [], found(read_config(str(CONFIGS / "quickstart.py"))))
    assert f"ORIGINAL = {name!r}" in (tmp_path / "found.py").read_text()


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = pathlib.Path("mine.py")
    original.write_text((CONFIGS / "t5_1_1_base_c4.py").read_text())
    with pytest.raises(ConfigError, match=r"found\.txt.*Python file"):
        check_found_config("found.txt", "mine.py")
    with pytest.raises(ConfigError, match="the config itself"):
        check_found_config("../" + tmp_path.name + "/mine.py", "mine.py")
    nothing = found(read_config("mine.py"), plan={**PLAN, "fits": False})
    with pytest.raises(ConfigError, match="nothing that was compiled fits"):
        write_found_config("found.py", "mine.py", [], nothing)
    assert not pathlib.Path("found.py").exists()
