"""``mmseg-adm preflight`` from a clone."""

import sys

from mmseg_adm.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['preflight', *sys.argv[1:]]))
