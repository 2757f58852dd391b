"""Convolutional sparse coding: the operator, shrinkage, the pursuit of whole spikes with its local search, and the convex problem

    minimise over x   1/(2 sigma^2) ||y - H x||^2 + lambda ||x||_1          (MODEL, Encoder; Eq. 19)

with y (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times) of unit norm, and codes
x (n_windows, n_units, n_positions), n_positions = n_samples - n_times + 1, shared by the channels.
"""
