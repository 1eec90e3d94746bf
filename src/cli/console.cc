#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

namespace sluice {
namespace {

volatile std::sig_atomic_t raised = 0;

extern "C" void on_interrupt(int) {
  if (raised != 0) ::_exit(130);
  raised = 1;
}

constexpr int kBarWidth = 30;

}  // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  // No SA_RESTART: a read from the terminal returns, so that a prompt can be left.
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  // A closed pipe is a failed write with a message, not a silent death.
  std::signal(SIGPIPE, SIG_IGN);
  // So is a file that may not grow any more (ulimit -f).
  std::signal(SIGXFSZ, SIG_IGN);
}
bool interrupted() {
  return raised != 0;
}
void clear_interrupt() {
  raised = 0;
}

double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

Progress::Progress(Console& console, std::string_view label) : console_(console), label_(label) {}

Progress::~Progress() {
  if (drawn_) console_.err << "\r\x1b[K" << std::flush;
}

void Progress::update(size_t done, size_t total) {
  if (!console_.err_is_terminal || total == 0) return;
  const double now = now_seconds();
  if (drawn_ && now - last_ < 0.08 && done != total) return;
  last_ = now;
  drawn_ = true;
  const auto filled = static_cast<int>(done * kBarWidth / total);
  std::string bar;
  for (int i = 0; i < kBarWidth; ++i) bar += i < filled ? "█" : "░";
  console_.err << fmt::format("\r{} {} {:3}%", label_, bar, done * 100 / total) << std::flush;
}

std::string human_bytes(size_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1024.0 * 1024 * 1024) return fmt::format("{:.2f} GiB", b / (1024.0 * 1024 * 1024));
  if (b >= 1024.0 * 1024) return fmt::format("{:.1f} MiB", b / (1024.0 * 1024));
  return fmt::format("{:.0f} KiB", b / 1024.0);
}

}  // namespace sluice
