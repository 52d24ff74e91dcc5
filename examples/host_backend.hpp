// The backends of the host by the names that command lines know them by.
#pragma once
#include <multistage/eigen.hpp>
#include <multistage/multistage.hpp>
#include <multistage/thrust.hpp>
#include <string>
#include <variant>
#ifdef MULTISTAGE_COMPILED_HOSTS  // the library compiled_hosts has these
namespace multistage {
MULTISTAGE_NETWORKS(extern template, float, eigen)
MULTISTAGE_TRAINING(extern template, float, eigen)
MULTISTAGE_NETWORKS(extern template, float, thrust_host)
MULTISTAGE_TRAINING(extern template, float, thrust_host)
}  // namespace multistage
#endif

/// One of them, for std::visit.
using host_backend = std::variant<multistage::cpu, multistage::eigen, multistage::thrust_host>;

/// The backend of a name. @param threads 0: one a processor that may be used
inline host_backend host_backend_of(const std::string& name, int threads) {
  if (name == "eigen")
    return multistage::eigen(threads);
  if (name == "thrust")
    return multistage::thrust_host(threads);
  return multistage::cpu(threads);
}
