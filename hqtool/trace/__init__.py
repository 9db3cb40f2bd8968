"""The trace: one HDF5 file with the records of a training run. Only this package imports h5py."""
