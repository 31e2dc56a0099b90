"""Tensors, pictures, tables, paths and processes: nothing here is specific to AlignGuard.

`tensors` reads and writes safetensors files, `pictures` reads images, `tables` reads CSV files, `paths`
finds the images of a data set. `work_folder` keeps the rows of long work and locks folders. `processes`
lets several processes share one task, and `quantities` writes durations and sizes for people.
"""
