"""The command line of the simulated engine."""

import pytest

from serve_app.engine.simulated.__main__ import main


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "70000"], "argument --port: must be 0 to 65535, got '70000'"),
        (["--port", "x"], "argument --port: must be 0 to 65535, got 'x'"),
        (["--max-num-seqs", "0"], "argument --max-num-seqs: must be 1 to 65536, got '0'"),
        (["--settings", "{"], "argument --settings: Invalid JSON"),
        (["--settings", '{"decode": 1}'], "argument --settings: decode: Extra inputs"),
        (["--settings", '{"kv_block_tokens": 99999}'], "kv_tokens must be at least"),
        (["--middleware", "os"], "argument --middleware: os: "),
        (["--middleware", "os.nothing"], "argument --middleware: os.nothing: "),
        (["--middleware", "os.getcwd"], "argument --middleware: os.getcwd is not a class"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port"),
        (["--typo"], "unrecognized arguments: --typo"),
    ],
)
def test_a_wrong_command_line(options, told, capsys) -> None:
    """One line that names the mistake, and exit status 2."""
    with pytest.raises(SystemExit) as end:
        main(["--served-model-name", "sim", *options])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("simulated: ")
    assert told in said
    assert said.count("\n") == 1


def test_the_model_needs_a_name(capsys) -> None:
    """There is no default model."""
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "--served-model-name" in capsys.readouterr().err


def test_a_middleware_that_will_not_start(tmp_path, monkeypatch, capsys) -> None:
    """What a middleware's constructor refuses is told like any other mistake."""
    code = "class Guard:\n    def __init__(self, app):\n        raise RuntimeError('no key')\n"
    (tmp_path / "unkeyed_guard.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        main(["--served-model-name", "sim", "--middleware", "unkeyed_guard.Guard"])
    assert capsys.readouterr().err == "simulated: no key\n"
