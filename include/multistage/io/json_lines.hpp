// JSON lines: one object a line, flushed at each, so that a log is whole up to the last line whatever happens.
#pragma once
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "../core/error.hpp"

namespace multistage::io {

class json_lines {
 public:
  /// @throws file_error when the file cannot be opened. `append` keeps what is there.
  explicit json_lines(const std::string& path, bool append = false) : path_(path), file_(std::fopen(path.c_str(), append ? "a" : "w")) {
    require<file_error>(file_ != nullptr, path, ": cannot be written");
  }
  ~json_lines() {
    if (file_) std::fclose(file_);
  }
  json_lines(const json_lines&) = delete;
  json_lines& operator=(const json_lines&) = delete;

  void write(const nlohmann::json& object) {
    const std::string line = object.dump() + "\n";
    require<file_error>(std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0, path_,
                        ": writing failed; is the disk full?");
  }

 private:
  std::string path_;
  std::FILE* file_;
};

}  // namespace multistage::io
