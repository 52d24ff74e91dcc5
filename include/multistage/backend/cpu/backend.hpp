// The CPU backend, all of it.
#pragma once
#include "attention.hpp"
#include "conv.hpp"
#include "cpu.hpp"
#include "gemm.hpp"
#include "norm.hpp"
#include "reduce.hpp"
#include "resample.hpp"
