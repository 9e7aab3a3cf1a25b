"""``contrafact dashboard``."""

from __future__ import annotations

from typing import Annotated

import typer

from contrafact.cli.output import Json, Workspace, answer


def register(app: typer.Typer) -> None:
    @app.command()
    def dashboard(
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
        browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Opens the dashboard: studies, stimuli and review, results."""
        import subprocess
        import sys

        from contrafact import bundle

        words = [
            sys.executable, "-m", "streamlit", "run", str(bundle.folder("dashboards") / "app.py"),
            "--server.address", host, "--server.port", str(port),
            "--server.headless", "false" if browser and not as_json else "true",
            "--browser.gatherUsageStats", "false", "--client.toolbarMode", "minimal",
        ]  # fmt: skip
        shown = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host
        with subprocess.Popen(words, stdout=sys.stderr) as page:
            answer(
                {"address": f"http://{shown}:{port}", "pid": page.pid},
                as_json=as_json,
                text=f"Dashboard at http://{shown}:{port} (Ctrl-C ends it)",
                then="contrafact status",
            )
            sys.stdout.flush()
            try:
                code = page.wait()
            except BaseException:
                page.terminate()
                raise
        raise typer.Exit(code)
