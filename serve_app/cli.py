"""``sluicegate …``: start the gate on this machine, carry keys in and out.

    sluicegate run [--config FILE] [--engine vllm|simulated] [--port N] [--host ADDRESS]
    sluicegate keys import FILE [--config FILE]      FILE - is the standard input
    sluicegate keys export [--config FILE]           to the standard output

``run`` is ``serve run`` with Ray on loopback, the fast proxy, a ready line, and nothing left behind
however it ends.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from serve_app.keyfile import export_file, import_file
from serve_app.launch import run as serve_until_stopped
from serve_app.plan import CannotStartError, plan, settings_of

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _about() -> None:
    """One gate in front of GPU model replicas: who is calling, how much, and when."""


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="Ray Serve's config file.")] = Path(
        "serve_config.yaml"
    ),
    engine: Annotated[str | None, typer.Option(help="Every model's engine.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
) -> None:
    """Serve on this machine until Ctrl-C."""
    try:
        planned = plan(config, engine=engine, port=port, host=host)
    except CannotStartError as err:
        raise SystemExit(f"sluicegate: {err}") from None
    raise SystemExit(serve_until_stopped(planned))


keys = typer.Typer(no_args_is_help=True, help="Many keys at once; hashes, never secrets.")
app.add_typer(keys, name="keys")
ConfigFile = Annotated[Path, typer.Option("--config", help="Ray Serve's config file.")]


@keys.command("import")
def import_keys(file: typer.FileText, config: ConfigFile = Path("serve_config.yaml")) -> None:
    """Write the keys of a file; those that are there stay, those revoked since come back."""
    try:
        typer.echo(asyncio.run(import_file(settings_of(config), file)))
    except CannotStartError as err:
        raise SystemExit(f"sluicegate: {err}") from None


@keys.command("export")
def export_keys(config: ConfigFile = Path("serve_config.yaml")) -> None:
    """Write every key to the standard output, one a line."""
    try:
        count = asyncio.run(export_file(settings_of(config), sys.stdout.write))
    except CannotStartError as err:
        raise SystemExit(f"sluicegate: {err}") from None
    typer.echo(f"{count} keys", err=True)


def main() -> None:
    """Enter from the command line."""
    app()


if __name__ == "__main__":
    main()
