// golden_check on a GPU: the same cases on the CUDA backend. Exits with 77 where there is no
// GPU.
#include "golden_check.cpp"
