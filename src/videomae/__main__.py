"""`python -m videomae` is the command `videomae`."""

import sys

from videomae.cli import main

sys.exit(main())
