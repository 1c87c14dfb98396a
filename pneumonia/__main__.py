"""`python -m pneumonia`, the same as the command `pneumonia`."""

import sys

from pneumonia.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
