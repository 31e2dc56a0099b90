"""Tensors, pictures, tables, paths and processes: nothing here is specific to AlignGuard.

`tensors` reads and writes safetensors files. `pictures` reads images, each kind by the rule that
`picture_kinds` has for it; `png_chunks` checks PNG files. `texts` decodes text files, and `tables` reads CSV
and JSON rows from them. `paths` finds the files of a data set and keeps them inside its folder. `work_folder`
keeps the rows of long work and locks folders. `processes` lets several processes share one task, and
`quantities` writes durations and sizes for people.
"""
