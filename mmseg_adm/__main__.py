"""``python -m mmseg_adm``: the same as the console script ``mmseg-adm``."""

import sys

from .commands.main import main

if __name__ == '__main__':
    sys.exit(main())
