"""`python -m studio` is `quant-studio`."""

import sys

from studio.cli import main

sys.exit(main())
