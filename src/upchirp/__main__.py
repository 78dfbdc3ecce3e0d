"""`python -m upchirp`, for launchers such as torchrun."""

import sys

from upchirp.cli import main

if __name__ == "__main__":
    sys.exit(main())
