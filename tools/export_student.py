"""Cut the student out of a distiller's checkpoint: a plain mmseg checkpoint and config."""

from mmseg_adm.commands.export_student import main

if __name__ == '__main__':
    main()
