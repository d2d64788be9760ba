"""The main job on the drawn data set, command by command, and one closing table."""

from mmseg_adm.commands.demo import main

if __name__ == '__main__':
    main()
