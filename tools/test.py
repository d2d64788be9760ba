"""Evaluate one member of a distiller or all, or a plain segmentor."""

from mmseg_adm.commands.test import main

if __name__ == '__main__':
    main()
