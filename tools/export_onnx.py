"""Write a trained network as ONNX, compared with PyTorch before the file is there."""

from mmseg_adm.commands.export_onnx import main

if __name__ == '__main__':
    main()
