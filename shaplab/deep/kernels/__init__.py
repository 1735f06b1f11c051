"""numba kernels of the deep rules: numeric arrays in and out."""
