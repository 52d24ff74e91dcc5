// What the library compiled_for_tests has of the umbrellas before this one
// (tests/CMakeLists.txt): networks of other scalars and backends than those of
// multistage::compiled.
#pragma once
#ifdef MULTISTAGE_TEST_COMPILED
namespace multistage {
MULTISTAGE_NETWORKS(extern template, double, cpu)
MULTISTAGE_TRAINING(extern template, double, cpu)
#ifndef MULTISTAGE_TEST_CPU_ALONE
MULTISTAGE_NETWORKS(extern template, double, eigen)
MULTISTAGE_NETWORKS(extern template, double, thrust_host)
MULTISTAGE_NETWORKS(extern template, float, eigen)
MULTISTAGE_TRAINING(extern template, float, eigen)
MULTISTAGE_NETWORKS(extern template, float, thrust_host)
MULTISTAGE_TRAINING(extern template, float, thrust_host)
#endif
}  // namespace multistage
#endif
