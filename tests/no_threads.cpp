// Loaded before a program (LD_PRELOAD): the system starts three threads for it and no more, as
// under a limit on processes (which does not bind root). See no_threads.sh.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

extern "C" int pthread_create(pthread_t* thread,
                              const pthread_attr_t* attributes,
                              void* (*run)(void*),
                              void* argument) {
  using function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const function real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "pthread_create"));
  static std::atomic<int> left{3};
  return left.fetch_sub(1) > 0 ? real(thread, attributes, run, argument) : EAGAIN;
}
