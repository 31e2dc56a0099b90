"""Files, tensors, pictures, tables and processes: what knows no word of AlignGuard."""
