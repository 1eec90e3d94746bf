#include "weights/mapped_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "weights/tensor_source.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

int64_t sum(const MappedFile& file) {
  int64_t total = 0;
  for (size_t i = 0; i < file.bytes(); ++i) total += std::to_integer<int64_t>(file.data()[i]);
  return total;
}

std::shared_ptr<MappedFile> map(const std::string& path) {
  auto file = MappedFile::open(path);
  EXPECT_TRUE(file.ok()) << file.status().message();
  return std::move(file).value();
}

TEST(MappedFile, ReadsAndReleases) {
  const ScratchDir dir;
  write_file(dir / "f", std::string(100'000, '\1'));
  const auto file = map(dir / "f");
  EXPECT_EQ(file->bytes(), 100'000u);
  EXPECT_EQ(sum(*file), 100'000);
  file->release_pages(file->data() + 5000, 20'000);
  file->release_pages(file->data(), file->bytes());
  file->release_pages(nullptr, 1);
  EXPECT_EQ(sum(*file), 100'000);
  EXPECT_TRUE(file->health().ok());
  write_file(dir / "empty", "");
  EXPECT_EQ(map(dir / "empty")->bytes(), 0u);
}

TEST(MappedFile, ReadsAheadAndEndsWithTheMapping) {
  const ScratchDir dir;
  write_file(dir / "f", std::string(70 << 20, '\1'));  // three pieces
  for (int i = 0; i < 3; ++i) {
    const auto file = map(dir / "f");
    file->prefer_large_pages();
    file->read_ahead();
    file->read_ahead();
    if (i > 0) {
      EXPECT_EQ(sum(*file), 70 << 20);
    }
  }
  write_file(dir / "empty", "");
  map(dir / "empty")->read_ahead();
  const auto cut = map(dir / "f");
  ASSERT_EQ(::truncate((dir / "f").c_str(), 8192), 0);
  cut->read_ahead();  // finds no more than that, and says nothing
  EXPECT_EQ(sum(*cut), 8192);
  EXPECT_FALSE(cut->health().ok());
}

TEST(MappedFile, TruncatedWhileMappedIsACleanError) {
  const ScratchDir dir;
  write_file(dir / "f", std::string(40'960, '\1'));
  write_file(dir / "other", std::string(40'960, '\1'));
  const auto file = map(dir / "f"), other = map(dir / "other");
  ASSERT_EQ(::truncate((dir / "f").c_str(), 8192), 0);
  int64_t total = 0;
  const Status s = guard_mapped_reads([&] {
    const std::vector<int> owned(100, 1);  // the body runs to its end: nothing leaks
    total = sum(*file);
    return ok_status();
  });
  EXPECT_EQ(total, 8192);  // what is lost reads as zeros
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.code(), StatusCode::kDataLoss);
  const Status health = file->health();
  ASSERT_FALSE(health.ok());
  EXPECT_NE(health.message().find(dir / "f"), std::string::npos);
  EXPECT_TRUE(other->health().ok());
  EXPECT_TRUE(guard_mapped_reads([&] {
                EXPECT_EQ(sum(*other), 40'960);
                return ok_status();
              }).ok());
  EXPECT_TRUE(map(dir / "f")->health().ok());  // a new mapping starts anew
}

TEST(MappedFile, ThreadsFaultTogether) {
  const ScratchDir dir;
  std::vector<std::shared_ptr<MappedFile>> files;
  for (int i = 0; i < 8; ++i) {
    const std::string path = dir / std::to_string(i);
    write_file(path, std::string(1 << 20, '\1'));
    files.push_back(map(path));
    if (i % 2 == 0) {
      ASSERT_EQ(::truncate(path.c_str(), 0), 0);
    }
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 8; ++i) {
        int64_t total = 0;
        const Status s = guard_mapped_reads([&] {
          total = sum(*files[static_cast<size_t>(i)]);
          return files[static_cast<size_t>(i)]->health();
        });
        EXPECT_EQ(total, i % 2 == 0 ? 0 : 1 << 20);
        EXPECT_EQ(s.ok(), i % 2 != 0);
      }
    });
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(files[static_cast<size_t>(i)]->health().ok(), i % 2 != 0);
}

TEST(MappedFile, TheBodysOwnErrorComesThrough) {
  EXPECT_EQ(guard_mapped_reads([] { return not_found("mine"); }).message(), "mine");
}

// Faults that are not ours end the process as they would without us, or reach the handler that was
// there before.
void fault_elsewhere() {
  const ScratchDir dir;
  write_file(dir / "f", std::string(8192, '\1'));
  const auto file = map(dir / "f");
  ::raise(SIGBUS);
}

TEST(MappedFileDeathTest, ForeignFaultsKeepTheirMeaning) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        fault_elsewhere();
        ::raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(
      {
        ::signal(
            SIGBUS, +[](int) { ::_exit(42); });
        fault_elsewhere();
      },
      testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace sluice
