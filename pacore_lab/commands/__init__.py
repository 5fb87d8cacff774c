"""The commands `python -m pacore_lab NAME`, each in the module of that name."""
