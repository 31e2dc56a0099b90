"""Tensors, pictures, tables, paths, folders and processes: nothing here depends on what is trained."""
