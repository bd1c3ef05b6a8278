"""voxkernels: fast kernels on voxel volumes. Arrays in, arrays out."""

__all__: list[str] = []
