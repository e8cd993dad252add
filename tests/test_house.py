"""The house keeps its own rules."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import serve_app
from serve_app import errors
from serve_app.store import TEXTS, keys

ROOT = Path(serve_app.__file__).parent
REPO = ROOT.parent
HALL = {"errors", "settings", "auth_settings", "section", "mistakes", "environment"}
HALL |= {"ports", "reaper", "haproxy", "proxy", "certificate", "ray_environment"}
HALL |= {"redaction", "log_records", "allowance", "amount", "model_settings", "store_place"}
JOINERS = {"app", "assembly", "cli", "keyfile", "plan", "launch", "serving"}
ARROWS = {
    "ingress": {"auth", "limits", "queueing", "telemetry"},
    "auth": {"store"},
    "limits": {"store"},
    "queueing": {"store"},
    "engine": {"store"},
    "store": set(),
    "telemetry": {"store"},
}
PYTHON = sorted(ROOT.rglob("*.py"))
LUA = sorted((ROOT / "store" / "lua").rglob("*.lua"))
STEPS = sorted(TEXTS)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Every module that ``nodes`` name; of our own, each name taken from ``serve_app`` itself."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            whole = node.module == "serve_app"
            found |= {f"serve_app.{a.name}" for a in node.names} if whole else {node.module or ""}
    return found


def ours(path: Path) -> set[str]:
    """Every module of ours that a file names, as ``room`` or ``room.file``."""
    found = imports(ast.walk(ast.parse(path.read_text())))
    return {name.removeprefix("serve_app.") for name in found if name.startswith("serve_app.")}


@pytest.mark.parametrize("path", PYTHON, ids=shown)
def test_arrows_go_one_way(path: Path) -> None:
    """A room imports only the doors the map points to, the hall only the hall, a joiner any door.

    ``store`` passes; ``store.connection`` goes past the door.
    """
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    outside = {name for name in ours(path) if name.split(".")[0] != room} - HALL
    if room in JOINERS:
        assert outside <= set(ARROWS) | JOINERS
    else:
        assert outside <= ARROWS.get(room, set())


def test_the_map_names_every_room() -> None:
    """The drawing in serve_app/__init__.py shows the folders and files that exist."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    drawn = serve_app.__doc__ or ""
    assert rooms == set(ARROWS)
    assert files == HALL | JOINERS
    assert [
        name
        for name in sorted(rooms | HALL | JOINERS)
        if f"``{name}``" not in drawn and not re.search(rf"^    {name} ", drawn, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("room", ARROWS)
def test_each_door_says_what_was_decided(room: str) -> None:
    """A room's door tells what it is for and what was decided, and lists what it lends."""
    door = importlib.import_module(f"serve_app.{room}")
    assert "**Decided: " in (door.__doc__ or "")
    assert set(door.__all__) <= set(vars(door))
    assert len(set(door.__all__)) == len(door.__all__)


@pytest.mark.parametrize("name", ["haproxy", "reaper"])
def test_what_starts_often_is_light(name: str) -> None:
    """The shim and the reaper load nothing but the standard library and the hall."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    outside = {module.split(".")[0] for module in imports(iter(tree.body))}
    assert outside - set(sys.stdlib_module_names) <= {"serve_app"}
    assert ours(ROOT / f"{name}.py") <= HALL


def test_the_gateway_needs_no_engine() -> None:
    """The application loads without torch and without vllm; those live in the engine's process."""
    told = "import serve_app.app, sys; print({'torch', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()"]


def test_the_request_page_is_one_page() -> None:
    """Whoever wants to know what happens to a request reads sixty lines."""
    assert len((ROOT / "ingress" / "page.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", PYTHON, ids=shown)
def test_files_are_short_and_well_named(path: Path) -> None:
    """No file is over 300 lines or named after nothing in particular."""
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "core"}
    lines = len(path.read_text().splitlines())
    assert lines <= 300
    assert not vague & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


def test_one_place_catches_what_nobody_foresaw() -> None:
    """``except Exception``, or wider, stands once: in the door."""
    wide = [
        shown(path)
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
    assert wide == ["ingress/door.py"]


def test_no_lua_in_python() -> None:
    """A step is a Lua file, not a string."""
    lua = re.compile(r"redis\.p?call\s*\(|\bKEYS\[\d|\bARGV\[\d")
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and lua.search(node.value)
    ]
    assert found == []


def body_of(lua: str) -> str:
    """The code of a Lua file: without its header and its comments."""
    code = re.sub(r"--\[\[.*?\]\]", "", lua, flags=re.DOTALL)
    return re.sub(r"--.*", "", code)


@pytest.mark.parametrize("name", STEPS)
def test_lua_header_is_true(name: str) -> None:
    """A header names exactly the KEYS and ARGV that its body and its includes read."""
    ref = re.compile(r"\b(?:KEYS|ARGV)\[\d+\]")
    header = TEXTS[name].partition("]]")[0]
    assert set(ref.findall(header)) == set(ref.findall(body_of(TEXTS[name])))
    assert header.count("KEYS[") + header.count("ARGV[") == len(set(ref.findall(header)))


@pytest.mark.parametrize("name", STEPS)
def test_lua_header_is_whole(name: str) -> None:
    """A header is a sentence, what it returns, whose clock it reads, and a twin that exists."""
    header = TEXTS[name].partition("]]")[0]
    sentence = header.removeprefix("--[[\n").partition("\n\n")[0]
    assert re.match(r"[A-Z].*\. One atomic step[.;]", " ".join(sentence.split()))
    assert re.search(r"^Returns  \S", header, re.MULTILINE)
    clock = re.search(r"^Clock    (the store's TIME|none)$", header, re.MULTILINE)
    assert clock
    assert (clock[1] == "none") == ('"TIME"' not in body_of(TEXTS[name]))
    twin = re.search(r"^Twin     (.+)$", header, re.MULTILINE)
    assert twin
    assert twin[1].startswith("none: ") or (REPO / twin[1]).is_file()


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.name)
def test_lua_is_short_and_builds_no_key(path: Path) -> None:
    """A Lua file has at most 70 lines, and every key it touches was handed in.

    A key is the second argument of a call; it is a name, never put together.
    """
    text = path.read_text()
    lines, code = len(text.splitlines()), body_of(text)
    assert lines <= 70
    assert not re.search(r"[\"']sg:|\{[tm]:", code)
    called = re.findall(r"redis\.call\(\s*\"(\w+)\",?\s*([^,)]*)", code)
    touched = {second.strip() for command, second in called if command not in ("TIME", "PUBLISH")}
    assert [key for key in touched if not re.fullmatch(r"KEYS\[\d\]|k\.\w+|bucket", key)] == []


def drawn_errors() -> Iterator[tuple[str, str, int | None, str | None]]:
    """Each error in the drawn tree: its name, its parent's, its status and code if drawn."""
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"( {4,})([A-Z]\w+)(?: +(\d{3}))?(?: +(.*))?", line)
        if found:
            while above and above[-1][0] >= len(found[1]):
                above.pop()
            code = re.match(r"[a-z]+(?:_[a-z]+)+(?= |$)|not_found", found[4] or "")
            drawn = code is not None and found[2] not in ("Refused", "Dropped")
            yield (
                found[2],
                above[-1][1] if above else "Exception",
                int(found[3]) if found[3] else None,
                code[0] if drawn and code else None,
            )
            above.append((len(found[1]), found[2]))


def test_every_refusal_is_drawn() -> None:
    """The tree in errors.py shows each error under its parent, with its true status and code."""
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.GateError)
    }
    drawn = list(drawn_errors())
    assert [name for name, *_ in drawn] == list(classes)
    for name, parent, status, code in drawn:
        assert classes[name].__bases__[0].__name__ == parent
        assert status in (None, classes[name].status), name
        assert code in (None, classes[name].code), name
        own = vars(classes[name]).get("code", code)
        assert code == own or name == "GateError", f"{name} has the code {own}"


def test_each_code_has_one_error() -> None:
    """No two errors share a code of their own, and each that is raised has status and code."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    classes = [kind for kind in kinds if issubclass(kind, errors.GateError)]
    codes = [kind.__dict__["code"] for kind in classes if "code" in vars(kind)]
    assert len(codes) == len(set(codes))
    leaves = [kind for kind in classes if kind.__doc__ and not kind.__subclasses__()]
    silent = [kind.__name__ for kind in leaves if kind.code == "internal_error"]
    assert silent == ["Internal"]


def test_the_table_of_keys_is_whole() -> None:
    """The table in store/keys.py names every key that its functions make, and no other."""
    letters = {"tenant": "T", "key_id": "K", "request_id": "R", "hour": "H"}
    letters |= {"model": "M", "gateway": "G", "name": "N", "token_id": "J", "tag": "X"}
    made: set[str] = set()
    for name, value in vars(keys).items():
        if inspect.isfunction(value):
            names = value(**{arg: letters[arg] for arg in inspect.signature(value).parameters})
            made |= {names} if isinstance(names, str) else set(names)
        elif name.isupper():
            made.add(value)
    table = re.findall(r"^\| ``(sg:[^`]+)`` \| \w+ \| [^|]+ \| [^|]+ \|$", keys.__doc__ or "", re.M)
    channels = re.findall(r"Channels: ``(sg:[^`]+)``", keys.__doc__ or "")
    assert set(table) | set(channels) == made
    assert len(table) == len(set(table))


def test_every_key_carries_a_hash_tag() -> None:
    """Each key of a tenant or model carries one tag, so that the same code runs on a cluster."""
    table = re.findall(r"^\| ``(sg:[^`]+)``", keys.__doc__ or "", re.MULTILINE)
    untagged = {name for name in table if not re.search(r"^sg:\{(t:T|m:M|a|X)\}:", name)}
    alone = {keys.TENANTS, keys.BOOTSTRAP, keys.USERNAMES, keys.SESSION_SECRET, keys.AUDIT}
    assert untagged == alone


def tracked() -> list[Path]:
    """The text files of this checkout, as git lists them."""
    git = shutil.which("git")
    if git is None or not (REPO / ".git").exists():
        pytest.skip("not a checkout")
    listing = [git, "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    return [REPO / name for name in names.split("\0") if name]


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business; no file of ours says it."""
    hosts = [
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "(?:org|com)"), ("crates", "io"),
        ("download.pytorch", "org"), ("wheels.vllm", "ai"), ("anaconda", "(?:org|com)"),
        ("rubygems", "org"), ("proxy.golang", "org"), ("repo.maven.apache", "org"),
    ]  # fmt: skip
    named = re.compile("|".join(f"{re.escape(name)}[.]{end}" for name, end in hosts))
    found = [
        f"{path.relative_to(REPO)}: {match[0]}"
        for path in tracked()
        if path.is_file() and (match := named.search(path.read_text(errors="ignore")))
    ]
    assert found == []
