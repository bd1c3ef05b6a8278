"""The `cbdetach` command. With only the kernels installed, it says which extra to install."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from cbdetach.cli import start

        start()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"cbdetach", "voxkernels"}:
            raise
        print(
            f"cbdetach: the pipeline is not installed ({error.name} is missing): pip install 'cbdetach[cpu]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
