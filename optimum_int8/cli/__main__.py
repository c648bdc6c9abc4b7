"""`python -m optimum_int8.cli`, for a checkout that is not installed."""

import sys

from .command_line import main

sys.exit(main())
