"""``python -m normbench``: what one asks of sessions that are over."""

import sys

from normbench.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
