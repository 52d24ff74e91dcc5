// Signals that ask a program to end, and those that writing raises. Schedulers send SIGTERM,
// closed terminals SIGHUP, people SIGINT (Ctrl-C): whoever has something to save asks
// `stop_signals` whether one came. A reader that went away (SIGPIPE) and a file beyond its
// limit (SIGXFSZ) are errors of the write that met them, not the end of the process.
//
//   const stop_signals stop;
//   while (!stop.caught())
//     trainer.step();
#pragma once
#include <atomic>
#include <csignal>
#include <mutex>
#include <optional>

namespace multistage {

namespace detail {

/// What a signal does while this lives. One that is ignored (nohup, a shell's background jobs)
/// stays so.
class signal_setting {
 public:
  /// @param handler SIG_IGN leaves a signal alone that the program has a handler for
  signal_setting(int number, void (*handler)(int), int flags) {
    if (::sigaction(number, nullptr, &before_) != 0 || before_.sa_handler == SIG_IGN)
      return;
    if (handler == SIG_IGN && before_.sa_handler != SIG_DFL)
      return;  // the program has a use for it
    struct sigaction ours {};
    ours.sa_handler = handler;
    ours.sa_flags = flags;
    sigemptyset(&ours.sa_mask);
    if (::sigaction(number, &ours, nullptr) == 0)
      number_ = number;
  }
  ~signal_setting() {
    if (number_ != 0)
      ::sigaction(number_, &before_, nullptr);
  }
  signal_setting(const signal_setting&) = delete;
  signal_setting& operator=(const signal_setting&) = delete;

 private:
  int number_ = 0;
  struct sigaction before_ {};
};

}  // namespace detail

/// While it lives, a write that fails says so instead of ending the process.
class write_signals_ignored {
  detail::signal_setting pipe_{SIGPIPE, SIG_IGN, 0};
  detail::signal_setting size_{SIGXFSZ, SIG_IGN, 0};
};

namespace detail {
/// What stop_signals sets.
struct stop_settings {
  write_signals_ignored writing;
  signal_setting interrupt;
  signal_setting terminate;
  signal_setting hang_up;

  explicit stop_settings(void (*note)(int))
      : interrupt(SIGINT, note, SA_RESTART | int(SA_RESETHAND)),
        terminate(SIGTERM, note, SA_RESTART),
        hang_up(SIGHUP, note, SA_RESTART) {}
};
}  // namespace detail

/// Catches SIGINT, SIGTERM and SIGHUP while one lives, in whatever thread; includes
/// write_signals_ignored. Handlers of the program's own are put back at the end. A second
/// SIGINT ends the process as usual; a second SIGTERM or SIGHUP does not, since terminals and
/// schedulers send them more than once.
class stop_signals {
 public:
  /// Catches from here on; what was caught before counts no more where no other one lives.
  stop_signals() {
    const std::lock_guard lock(guard_);
    if (users_++ > 0)
      return;
    caught_.store(0);
    settings_.emplace(note);
  }
  ~stop_signals() {
    const std::lock_guard lock(guard_);
    if (--users_ == 0)
      settings_.reset();
  }
  stop_signals(const stop_signals&) = delete;
  stop_signals& operator=(const stop_signals&) = delete;

  /// The signal that asked the program to end, 0 while none did. Programs that end for it end
  /// with status 128 + its number.
  int caught() const {
    return caught_.load();
  }

 private:
  /// What a signal does: it is noted, nothing else is safe in its handler.
  static void note(int number) {
    caught_.store(number);
  }
  static inline std::atomic<int> caught_{0};
  static_assert(std::atomic<int>::is_always_lock_free,
                "multistage: a signal's handler needs it");
  static inline std::mutex guard_;
  static inline int users_ = 0;
  static inline std::optional<detail::stop_settings> settings_;
};

}  // namespace multistage
