"""`python -m syncd`, and the script `syncd`."""

import sys


def start() -> None:
    """Run the command line. An interrupt while it is still being loaded ends it as one does later."""
    try:
        from syncd.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("syncd: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    start()
