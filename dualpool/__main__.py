"""`python -m dualpool`, the same as the command `dualpool`."""

import sys

from dualpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
