"""`python -m attnbench` is the command line."""

import sys

from attnbench.cli import main

sys.exit(main())
