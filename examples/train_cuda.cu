// train on a GPU: the same page, to which nvcc adds `--backend cuda` (docs/training.md).
#include "train.cpp"
