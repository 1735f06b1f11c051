"""numba kernels of the ShapNets: numeric arrays in and out."""
