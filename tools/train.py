"""Train a distiller, or a plain segmentor on the same data and schedule."""

from mmseg_adm.commands.train import main

if __name__ == '__main__':
    main()
