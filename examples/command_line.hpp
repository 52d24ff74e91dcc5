// Command lines of the programs: the options of a struct by the names that its `fields` gives
// them, and one way to end: status 0, or 2 with what is wrong.
#pragma once
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <multistage/core/options.hpp>
#include <multistage/distributed/run_together.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace command_line {

/// The body of main behind the options: reads the command line, runs f() and gives the exit
/// status, 2 for options and files that are no good. Where f takes a process_group, it is told
/// the processes that mpirun started.
template <class F>
int run(CLI::App& app, int argc, char** argv, F&& f) {
  constexpr bool together = std::is_invocable_v<F, multistage::process_group>;
  multistage::together_options waits;
  if constexpr (together)
    app.add_option("--timeout", waits.timeout_seconds,
                   "of mpirun's processes: so many seconds without one of them, and all end")
        ->check(CLI::Range(1.0, 1e9))
        ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::ostringstream nowhere;
    const bool speaks = !together || multistage::launch::is_first();
    const int status =
        speaks ? app.exit(e) : app.exit(e, nowhere, nowhere);  // one says it for all
    return status == 0 ? 0 : 2;
  }
  if constexpr (together)
    return multistage::run_together(argc, argv, std::forward<F>(f), waits);
  else
    return multistage::exit_status(f);
}

/// Takes the whole numbers that a seed can be; read as a number alone, "-1" would be one.
inline CLI::Validator seed_number() {
  const auto problem = [](std::string& text) {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [at, status] = std::from_chars(text.data(), end, value);
    return status == std::errc() && at == end
               ? std::string()
               : "'" + text + "' is no whole number from 0 to 2^64 - 1";
  };
  return CLI::Validator(problem, "0 to 2^64 - 1");
}

/// The backends that a program was built with (backends.hpp).
inline std::vector<std::string> backend_names() {
  return {
#ifdef MULTISTAGE_WITH_EIGEN
      "eigen",
#endif
#ifdef MULTISTAGE_WITH_THRUST
      "thrust",
#endif
#ifdef __CUDACC__
      "cuda",
#endif
      "cpu"};
}

/// Takes the name of a backend and its number of threads.
inline void add_backend(CLI::App& app, std::string& backend, int& threads) {
  app.add_option("--backend", backend, "that networks compute on")
      ->check(CLI::IsMember(backend_names()))
      ->capture_default_str();
  app.add_option("--threads", threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

/// "--num-steps" of "num_steps".
inline std::string flag_of(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

/// ".png" of "grid.PNG".
inline std::string extension_of(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  for (char& c : extension)
    c = char(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

/// Refuses a path that is to become a PNG and has another kind's name. @throws value_error
inline void require_png(const std::string& flag, const std::string& path) {
  multistage::require<multistage::value_error>(extension_of(path) == ".png", flag, " ", path,
                                               ": is written as a PNG; name it so (.png)");
}

/// The words of a command line, with a null behind them, where `option` `value` WORD becomes
/// `option` "value WORD": CLI11 has options of a fixed number of words alone.
inline std::vector<char*> joined(int argc,
                                 char** argv,
                                 const std::string& option,
                                 const std::string& value) {
  static std::vector<std::string> made;
  made.assign(argv, argv + argc);
  for (std::size_t i = 0; i + 2 < made.size(); ++i)
    if (made[i] == option && made[i + 1] == value) {
      made[i + 1] += " " + made[i + 2];
      made.erase(made.begin() + std::ptrdiff_t(i + 2));
    }
  std::vector<char*> words;
  for (std::string& word : made)
    words.push_back(word.data());
  words.push_back(nullptr);
  return words;
}

/// Takes what may be on or off of a struct of options as flags (--grey), into the struct.
/// Returns their names with those of `others`, for named_options::add to leave out.
template <class Options>
std::set<std::string> add_flags(CLI::App& app,
                                Options& options,
                                std::set<std::string> others = {}) {
  Options::fields(options, [&]<class T>(const multistage::option& o, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      app.add_flag(flag_of(o.name), value, o.meaning);
      others.insert(o.name);
    }
  });
  return others;
}

/// Options whose names, meanings and ranges stand in structs of options. What was given is kept
/// as text until it is known for which struct it is.
class named_options {
 public:
  /// @param several what `--help` says of an option that several structs mean differently
  explicit named_options(std::string several = "depends on the sampler; see --list-samplers")
      : several_(std::move(several)) {}

  /// Takes the options of a struct, those named in `without` aside. Structs may share options.
  /// @param group of `--help` that they are listed in
  template <class Options>
  void add(CLI::App& app,
           const Options& defaults,
           const std::set<std::string>& without = {},
           const std::string& group = "Options") {
    Options::fields(defaults, [&]<class T>(const multistage::option& o, const T& value) {
      if (without.count(o.name))
        return;
      if (const auto it = given_.find(o.name);
          it != given_.end()) {  // of several structs, which may mean different things by it
        if (it->second.option->get_description() != help(o, value))
          it->second.option->type_name("VALUE")->description(several_);
        return;
      }
      constexpr bool list =
          std::is_same_v<T, std::vector<double>> || multistage::detail::is_list<T>;
      std::string flags = flag_of(o.name);
      for (const auto& [name, other] : short_names)
        if (name == std::string(o.name))
          flags += std::string(",") + other;
      auto& [texts, option] = given_[o.name];
      option = app.add_option(flags, texts, help(o, value))
                   ->type_name(type_of(o, value))
                   ->group(group)
                   ->expected(1, list ? 1000 : 1);
    });
  }

  /// Sets what was given of a struct's options and checks all of them. @throws value_error
  template <class Options>
  void set(const char* owner, Options& options) const {
    set_each(options, [](const multistage::option&, const auto&) {});
    multistage::check_options(owner, options);
  }
  /// Sets what was given of a struct's options, and calls f(option, value) for each.
  /// @throws value_error for texts that are no values
  template <class Options, class F>
  void set_each(Options& options, F&& f) const {
    Options::fields(options, [&](const multistage::option& o, auto& value) {
      if (const std::optional<std::string> text = text_of(o.name)) {
        multistage::set_option(as_flag(o), value, *text);
        f(o, value);
      }
    });
  }
  /// Whole numbers with commas between them that were given for an option of one number, which
  /// counts as not given then; nothing where one number was given, or none. @throws value_error
  std::vector<int> take_list(const std::string& name) {
    const auto it = given_.find(name);
    std::vector<int> numbers;
    if (it == given_.end() || it->second.option->count() == 0 ||
        it->second.texts[0].find(',') == std::string::npos)
      return numbers;
    std::vector<double> entries;
    const std::string flag = flag_of(name);
    multistage::set_option({flag.c_str(), "a number for each stage, lowest noise first"},
                           entries, it->second.texts[0]);
    for (const double entry : entries) {
      multistage::require<multistage::value_error>(
          entry == std::floor(entry) && entry >= 0 && entry <= 1e6, flag, ": ", entry,
          " is no number of steps, 0 to 1000000");
      numbers.push_back(int(entry));
    }
    it->second.option->clear();
    return numbers;
  }
  /// Names of the options that were given.
  std::vector<std::string> given() const {
    std::vector<std::string> names;
    for (const auto& [name, one] : given_)
      if (one.option->count() > 0)
        names.push_back(name);
    return names;
  }

 private:
  static constexpr std::pair<const char*, const char*> short_names[] = {
      {"num_steps", "--steps"},
      {"label", "--labels"},
      {"s_churn", "--churn"},
      {"batch_size", "--batch"}};
  struct entry {
    std::vector<std::string> texts;
    CLI::Option* option = nullptr;
  };
  /// What was given of an option, with commas between its parts.
  MULTISTAGE_COLD std::optional<std::string> text_of(const char* name) const {
    const auto it = given_.find(name);
    if (it == given_.end() || it->second.option->count() == 0)
      return {};
    std::string text;
    for (const std::string& part : it->second.texts)
      text += (text.empty() ? "" : ",") + part;
    return text;
  }
  /// The option under its flag's name, for messages.
  MULTISTAGE_COLD multistage::option as_flag(const multistage::option& o) const {
    multistage::option flag = o;
    flag.name = flag_names_.emplace(flag_of(o.name)).first->c_str();
    return flag;
  }
  template <class T>
  static std::string type_of(const multistage::option& o, const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      std::string s;
      for (const char* name : o.names)
        s += std::string(s.empty() ? "" : "|") + name;
      return s.empty() ? "true|false" : s;
    }
    if constexpr (std::is_same_v<T, std::vector<double>> || multistage::detail::is_list<T>)
      return "NUMBER,...";
    if constexpr (multistage::named_choice<T>) {
      std::string s;
      for (const char* name : option_names(value))
        s += std::string(s.empty() ? "" : "|") + name;
      return s;
    }
    if constexpr (std::is_same_v<T, std::string>)
      return "TEXT";
    return std::is_arithmetic_v<T> ? "NUMBER" : "NAME";
  }
  template <class T>
  static std::string help(const multistage::option& o, const T&) {
    const bool ranged =
        std::is_arithmetic_v<T> && !std::is_same_v<T, bool> && o.range.text() != "finite";
    return std::string(o.meaning) + (ranged ? " (" + o.range.text() + ")" : "");
  }
  std::string several_;
  std::map<std::string, entry> given_;
  mutable std::set<std::string> flag_names_;
};

}  // namespace command_line
