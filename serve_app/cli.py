"""``sluicegate …``: start the gate on this machine.

    sluicegate run [--config FILE] [--engine vllm|simulated] [--port N] [--host ADDRESS]

``run`` is ``serve run`` with Ray on loopback, the fast proxy, a ready line, and nothing left behind
however it ends.
"""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.launch import run as serve_until_stopped
from serve_app.plan import CannotStartError, plan

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


def main() -> None:
    """Enter from the command line."""
    app()


if __name__ == "__main__":
    main()
