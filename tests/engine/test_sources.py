"""Where a model's weights come from."""

from pathlib import Path

import pytest

from serve_app.engine import check_source, resolve, sources
from serve_app.model_settings import Model
from serve_app.settings import SettingsError


def model(source: str, engine: str = "vllm") -> Model:
    return Model.model_validate({"name": "m", "source": source, "engine": engine})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, as far as anybody looks before vLLM does."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "source", ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B-Instruct", "a-b/c.d_e-1", "0/1"]
)
def test_a_hub_id(source: str) -> None:
    """A Hugging Face id is left to vLLM, as it is; nothing is asked of any hub."""
    check_source(model(source))
    assert resolve(model(source)) == source


def test_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a config.json is a model, however its path is written."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for written in (str(folder), "./model", "~/model", "../" + folder.parent.name + "/model"):
        check_source(model(written))
        assert Path(resolve(model(written))).samefile(folder)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("builtin:gpt5", "no builtin 'gpt5'; there is smollm2-135m-instruct"),
        ("builtin:", "no builtin ''"),
        ("/nowhere/at/all", "/nowhere/at/all is not a model folder"),
        ("./nowhere", "nowhere is not a model folder (no config.json)"),
        ("~/nowhere", "nowhere is not a model folder"),
        ("", "'' is no builtin, folder or Hugging Face id"),
        ("org/name/more", "is no builtin, folder or Hugging Face id"),
        ("org/", "is no builtin"),
        ("-x", "is no builtin"),
        ("--host", "is no builtin"),
        ("org/-x", "is no builtin"),
        ("https://host/model", "is no builtin"),
        ("org name", "is no builtin"),
        ("org/näme", "is no builtin"),
        ("org/name\n", "is no builtin"),
    ],
)
def test_a_source_that_cannot_be_there(source: str, says: str, tmp_path, monkeypatch) -> None:
    """It is known before anything starts, and the message names the model and the source."""
    monkeypatch.chdir(tmp_path)
    for look in (check_source, resolve):
        with pytest.raises(SettingsError) as told:
            look(model(source))
        assert str(told.value).startswith("args.models: the source of 'm': ")
        assert says in str(told.value)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    """A folder that is there but holds no model is refused too."""
    with pytest.raises(SettingsError, match=r"no config\.json"):
        check_source(model(str(tmp_path)))


def test_a_builtin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package that is missing."""
    monkeypatch.setitem(
        sources.BUILTIN, "tiny", sources.Builtin("package_that_is_not_there", "tiny.gguf")
    )
    with pytest.raises(SettingsError, match="package_that_is_not_there is not installed here"):
        check_source(model("builtin:tiny"))


def test_the_simulated_engine_needs_no_weights() -> None:
    """Whatever the source says, nothing is looked for."""
    for source in ("/nowhere", "builtin:gpt5", "not a source"):
        check_source(model(source, "simulated"))


def test_a_builtin_that_is_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch) -> None:
    """Nothing is copied or converted."""
    folder = tmp_path / "tiny_model_wheel" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.BUILTIN, "tiny", sources.Builtin("tiny_model_wheel", "model"))
    check_source(model("builtin:tiny"))
    assert resolve(model("builtin:tiny")) == str(folder)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{}", ""),
        ("{}/..", "holds no adapter (no adapter_config.json)"),
        ("org/lora", ""),
        ("https://host/lora", "is no folder or Hugging Face id"),
    ],
)
def test_where_an_adapter_comes_from(tmp_path: Path, source: str, says: str) -> None:
    """A folder with an adapter_config.json, or an id that is left to vLLM; told at the start."""
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    adapters = [{"name": "a", "source": source.format(folder)}]
    named = Model.model_validate({"name": "m", "source": "org/m", "adapters": adapters})
    if not says:
        check_source(named)
        return
    with pytest.raises(SettingsError, match="the source of the adapter 'a'") as told:
        check_source(named)
    assert says in str(told.value)


def test_a_builtin_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the cache is taken as it is."""
    monkeypatch.setitem(sources.BUILTIN, "tiny", sources.Builtin("json", "tiny.gguf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = tmp_path / "sluicegate" / "models" / "tiny"
    made.mkdir(parents=True)
    assert resolve(model("builtin:tiny")) == str(made)
