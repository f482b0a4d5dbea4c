"""The `prokos` command."""


def main() -> None:
    """Entry point; the commands are imported here so that importing the package stays cheap."""
    from prokos.cli.app import app

    app()
