"""``python -m raddle``: the same command line as the ``raddle`` script."""

import sys

from raddle.cli import main

status = main()
if status:  # a plain end lets python -i go on with the program's names
    sys.exit(status)
