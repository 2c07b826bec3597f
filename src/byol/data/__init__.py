"""Images from names, folders, tables, datasets and tensors, and how to divide them."""
