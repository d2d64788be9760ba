"""``mmseg-adm export`` from a clone."""

import sys

from mmseg_adm.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['export', *sys.argv[1:]]))
