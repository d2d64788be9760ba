"""``mmseg-adm train`` from a clone."""

import sys

from mmseg_adm.commands.main import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
