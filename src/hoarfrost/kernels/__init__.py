"""Compiled kernels: the few inner loops in which nearly all of the time goes.

They are plain C functions, compiled for several instruction sets of which the best is chosen when they are loaded.
Each does what a function in PyTorch does elsewhere in the package, which is used where the kernels are missing.
"""
