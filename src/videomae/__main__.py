"""`python -m videomae` is the command `videomae`."""

import sys

from videomae.commands.cli import main

sys.exit(main())
