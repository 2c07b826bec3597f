"""`python -m byol` is the command `byol`."""

import sys

from byol.cli import main

sys.exit(main())
