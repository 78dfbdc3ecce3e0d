"""`python -m upchirp`: the command line without the script."""

import sys

from upchirp.cli import main

if __name__ == "__main__":
    sys.exit(main())
