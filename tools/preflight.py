"""Everything about a training that can be known before it starts; exit status 1 if it must not."""

import sys

from mmseg_adm.commands.preflight import main

if __name__ == '__main__':
    sys.exit(main())
