"""`python -m controller` is `iace`."""

import sys

from controller.cli import main

sys.exit(main())
