"""Compare methods over several seeds: train the cells of a plan, write table and pictures."""

from mmseg_adm.commands.benchmark import main

if __name__ == '__main__':
    main()
