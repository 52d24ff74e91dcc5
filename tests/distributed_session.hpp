// The processes of the tests that mpirun starts.
#pragma once
#include <multistage/distributed/mpi.hpp>

/// All of them.
multistage::mpi_communicator& world();
