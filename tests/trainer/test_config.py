"""Settings: the research code's files load unchanged, ours are validated, mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainer.datasets import small_city, trainer
from tests.trainer.research_settings import NO_EFFECT, RESEARCH
from trainer.config import Config, without_effect
from trainer.config_file import config_from, load_config
from trainer.errors import BadInput


@pytest.fixture
def research(tmp_path: Path) -> Path:
    file = tmp_path / "Beijing.yaml"
    file.write_text(RESEARCH)
    return file


def lasting(tree: Any) -> Any:
    """A tree without empty values, which mean defaults."""
    if isinstance(tree, dict):
        return {key: lasting(value) for key, value in tree.items() if value is not None}
    return tree


def given_part(tree: Any, given: Any) -> Any:
    """What a tree has under the keys that were given; keys of ours may be beside them."""
    if isinstance(tree, dict) and isinstance(given, dict):
        return {key: given_part(tree[key], value) for key, value in given.items() if value is not None}
    return tree


def test_every_research_key_loads_with_its_value(research: Path) -> None:
    plain, given = load_config(research).plain(), yaml.safe_load(RESEARCH)
    for section, keys in given.items():
        if section == "data_dir":
            assert plain[section] == keys
            continue
        for key, value in keys.items():
            assert given_part(plain[section][key], value) == lasting(value), f"{section}.{key}"


def test_the_notice_names_the_keys_without_effect(research: Path) -> None:
    assert without_effect(load_config(research)) == NO_EFFECT
    assert without_effect(Config()) == []
    assert without_effect(load_config(None, ["training.torch_compile=false", "wandb.enable=false"])) == []


def test_a_research_file_trains(research: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as it is, but not compiled (minutes); paths and epochs from flags. Its values are the run's."""
    monkeypatch.setenv("WANDB_MODE", "offline")  # the file asks for W&B
    data = small_city(tmp_path / "city")
    words = ("--data", data, "--cache", tmp_path / "cache", "--out", tmp_path / "run", "--teacher", "uniform")
    short = ("--set", "optimizer_config.max_epoch=1", "--set", "training.torch_compile=false")
    outcome = trainer("train", "--config", research, *words, *short)
    assert outcome.status == 0, outcome.err
    notices = [line for line in outcome.err.splitlines() if line.startswith("trainer: note:")]
    idle = [*NO_EFFECT[:-1], "training.torch_compile_mode", "training.disable_cudagraphs", NO_EFFECT[-1]]
    assert notices == [f"trainer: note: these settings have no effect here: {', '.join(idle)}"]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["optimizer_config"] == yaml.safe_load(RESEARCH)["optimizer_config"] | {"max_epoch": 1}
    assert saved["training"]["seed"] == 43

    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "checkpoints" / "best.safetensors", framework="pt") as weights:
        assert weights.get_slice("road_network_encoder.zone_id_emb.weight").get_shape() == [300, 128]


def test_nothing_given_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "sections.yaml").write_text("distill:\noptuna:\nwandb: {}\ndata_dir:\n")
    assert (
        load_config(None) == load_config(tmp_path / "empty.yaml") == load_config(tmp_path / "sections.yaml") == Config()
    )
    distill = Config().distill
    assert (distill.lambda_, distill.temperature, distill.window, distill.positions) == (0.1, 1.0, "full", "all")
    assert (distill.tau_squared, distill.shared_cells) == (False, "full")


def test_a_saved_config_is_the_same_again(research: Path) -> None:
    config = load_config(research, ["distill.window=full", "distill.positions=last"])
    assert config_from(config.plain()).plain() == config.plain()
    with pytest.raises(BadInput, match=r"^saved config: unknown key distill\.lamda: did you mean distill\.lambda\?$"):
        config_from({"distill": {"lamda": 1}})


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("distill.lambda=0.01", "distill", "lambda_", 0.01),
        ("distill.lambda = 1e-3", "distill", "lambda_", 0.001),
        ("distill.window=7", "distill", "window", 7),
        ("distill.window=full", "distill", "window", "full"),
        ("distill.teacher=grpc://a:1,b:2", "distill", "teacher", "grpc://a:1,b:2"),
        ("distill.enable=off", "distill", "enable", False),
        ("wandb.tags=[a, b]", "wandb", "tags", ["a", "b"]),
        ("data.candidate_top_k=3", "data", "candidate_top_k", 3),
        (
            "road_network_encoder_config.zone_id_num_embeddings=",
            "road_network_encoder_config",
            "zone_id_num_embeddings",
            None,
        ),
    ],
)
def test_overrides_go_before_the_file(research: Path, override: str, section: str, key: str, value: object) -> None:
    for file in (None, research):
        assert getattr(getattr(load_config(file, [override]), section), key) == value


def test_the_last_override_holds(research: Path) -> None:
    config = load_config(research, ["training.seed=1", "data_dir=/x", "training.seed=2"])
    assert (config.training.seed, config.data_dir) == (2, "/x")
    assert config.distill.temperature == 2.0


BAD_TREES = [
    ("distil: {lambda: 1}", "unknown key distil: did you mean distill?"),
    ("distill: {lamda: 1}", "unknown key distill.lamda: did you mean distill.lambda?"),
    ("distill: {xyzzy: 1}", "unknown key distill.xyzzy: known keys: enable, teacher, window, lambda, temperature,"),
    (
        "optimizer_config: {batchsize: 1}",
        "unknown key optimizer_config.batchsize: did you mean optimizer_config.batch_size?",
    ),
    (
        "road_network_encoder_feature: {road_attr: {lon_: 1}}",
        "unknown key road_network_encoder_feature.road_attr.lon_: did you mean road_network_encoder_feature.road_attr",
    ),
    ("optimizer_config: {batch_size: many}", "optimizer_config.batch_size = 'many': must be a valid integer"),
    ("optimizer_config: {batch_size: 1.5}", "optimizer_config.batch_size = 1.5: must be a valid integer"),
    ("optimizer_config: {batch_size: 0}", "optimizer_config.batch_size = 0: must be greater than 0"),
    ("optimizer_config: {batch_size: }", "optimizer_config.batch_size = None: must be a valid integer"),
    ("optimizer_config: {learning_rate: .inf}", "optimizer_config.learning_rate = inf: must be a finite number"),
    ("optimizer_config: {warmup_ratio: 1.1}", "optimizer_config.warmup_ratio = 1.1: must be less than or equal to 1"),
    ("distill: {temperature: 0}", "distill.temperature = 0: must be greater than 0"),
    ("distill: {temperature: 1e300}", "distill.temperature = '1e300': must be less than or equal to 1000"),
    ("distill: {temperature: 1000.1}", "distill.temperature = 1000.1: must be less than or equal to 1000"),
    ("distill: {lambda: 1.1e+6}", "distill.lambda = 1100000.0: must be less than or equal to 1000000"),
    ("distill: {lambda: -1}", "distill.lambda = -1: must be greater than or equal to 0"),
    ("distill: {lambda: .nan}", "distill.lambda = nan: must be a finite number"),
    ("distill: {window: 0}", "distill.window = 0: must be greater than or equal to 1 or must be 'full'"),
    ("distill: {window: whole}", "distill.window = 'whole': must be a valid integer"),
    ("distill: {positions: first}", "distill.positions = 'first': must be 'all' or 'last'"),
    ("distill: [1]", "distill = [1]: must be a valid dictionary"),
    ("trajectory_encoder_config: {dropout: 1}", "trajectory_encoder_config.dropout = 1: must be less than 1"),
    (
        "training: {torch_compile_mode: fast}",
        "training.torch_compile_mode = 'fast': must be 'default', 'reduce-overhead'",
    ),
    (
        "road_network_encoder_feature: {road_edge_index: [1]}",
        "road_network_encoder_feature.road_edge_index = [1]: must be None",
    ),
    ("data_dir: [a]", "data_dir = ['a']: must be a valid string"),
    ("optuna: 3", "optuna = 3: must be a valid dictionary"),
    ("1: 2", "1 = 1: Keys should be strings"),
    ("- distill", "must hold sections and keys, not a list"),
    ("distill", "must hold sections and keys, not a str"),
    ("distill: {", "not YAML: while parsing"),
    ("distill: !!python/object/apply:os.system [x]", "not YAML: could not determine a constructor"),
    ("wandb: {run_name: 2024-13-45}", "not YAML: month must be in 1..12"),
    ("a: " + "[" * 5000, "not YAML: maximum recursion depth exceeded"),
    ("a: " + "1" * 5000, "not YAML: Exceeds the limit"),
    ("distill:\n  lambda: 1\n  lambda: 2\n", "not YAML: line 3 gives the key 'lambda' a second time"),
    ("distill: {}\ndata: {}\n'distill': {}\n", "not YAML: line 3 gives the key 'distill' a second time"),
    ("a: \0", "not YAML: unacceptable character"),
]


@pytest.mark.parametrize(("text", "said"), BAD_TREES, ids=[text[:40] for text, _ in BAD_TREES])
def test_mistakes_are_named_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {said}")
    assert "\n" not in message


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("distill: {window: 0, lambda: -1}\nprofile: {}\n")
    with pytest.raises(BadInput) as caught:
        load_config(file)
    for said in ("distill.window = 0", "distill.lambda = -1", "unknown key profile: did you mean profiling?"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill.lambda", "--set 'distill.lambda': must be section.key=value"),
        ("=3", "--set '=3': must be section.key=value"),
        ("distill..lambda=3", "--set 'distill..lambda=3': must be section.key=value"),
        ("distill={window: 1, window: 2}", "--set 'distill={window: 1, window: 2}': '{window: 1, window: 2}' is not"),
        ("distill.lambda=[", "--set 'distill.lambda=[': '[' is not a YAML value"),
        ("wandb.run_name=2024-13-45", "--set 'wandb.run_name=2024-13-45': '2024-13-45' is not a YAML value"),
        ("data_dir.x=1", "--set 'data_dir.x=1': 'data_dir' is no section"),
        ("distill=3", "distill = 3: must be a valid dictionary"),
        ("distill.lambda=", "distill.lambda = None: must be a valid number"),
        ("lambda=3", "unknown key lambda: "),
        ("training.seed=-1", "training.seed = -1: must be greater than or equal to 0"),
    ],
)
def test_bad_overrides(override: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data_dir: /x")
    with pytest.raises(BadInput) as caught:
        load_config(tmp_path / "c.yaml", [override])
    assert str(caught.value).removeprefix(f"{tmp_path / 'c.yaml'}: ").startswith(said)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    for file in (tmp_path / "none.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(BadInput, match="cannot be read as a config") as caught:
            load_config(file)
        assert str(file) in str(caught.value)


def test_merge_keys_are_no_second_time(tmp_path: Path) -> None:
    """A key that a mapping takes over from another may be given again, whatever the order of reading."""
    text = "optuna:\n  search_space: {window: {<<: &x {min: 1, max: 9}, min: 3}}\n"
    text += "distill: {<<: {window: 7, lambda: 0.5}, window: 3}\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_config(tmp_path / "c.yaml")
    assert config.plain()["optuna"]["search_space"]["window"] == {"min": 3, "max": 9}
    assert (config.distill.window, config.distill.lambda_) == (3, 0.5)


def test_the_largest_weights_of_the_teacher() -> None:
    distill = load_config(None, ["distill.temperature=1000", "distill.lambda=1000000"]).distill
    assert (distill.temperature, distill.lambda_) == (1000.0, 1e6)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().training.seed = 3  # type: ignore[misc]
