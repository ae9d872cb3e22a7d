"""`crosstie` and `python -m crosstie`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from crosstie.cli import app

    app()


if __name__ == "__main__":
    main()
