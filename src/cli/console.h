// What a command has of the world outside: its streams, what is a terminal, and Ctrl-C.
#pragma once

#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>

namespace sluice {

struct Console {
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
};

// The first Ctrl-C (or SIGTERM) only raises a flag that commands look at between steps; a second
// one, with the flag still up, ends the process at once with code 130.
void install_interrupt_handler();
bool interrupted();
void clear_interrupt();

// A bar on standard error, drawn only on a terminal and at most some ten times a second.
class Progress {
 public:
  Progress(Console& console, std::string_view label);
  ~Progress();
  void update(size_t done, size_t total);

 private:
  Console& console_;
  std::string label_;
  double last_ = -1;
  bool drawn_ = false;
};

// Seconds on a steady clock.
double now_seconds();
// "1.5 GiB", "312 MiB", "17 KiB".
std::string human_bytes(size_t bytes);

}  // namespace sluice
