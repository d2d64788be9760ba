"""Time and memory of a training step: the floor, each method, all methods."""

from mmseg_adm.commands.profile import main

if __name__ == '__main__':
    main()
