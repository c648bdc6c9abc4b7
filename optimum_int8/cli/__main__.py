"""`python -m optimum_int8.cli`, for a checkout that is not installed."""

import sys

from .main import main

sys.exit(main())
