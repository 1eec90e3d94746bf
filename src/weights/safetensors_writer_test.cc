#include "weights/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "weights/safetensors.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

size_t files_in(const std::string& path) {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path)) ++n;
  return n;
}

const std::vector<float> kFloats = {1.5f, -2.0f, 3.25f};
const std::vector<int32_t> kInts = {7, -9};

std::vector<TensorToWrite> two_tensors() {
  return {{"zeta", DType::kF32, {3, 1}, reinterpret_cast<const std::byte*>(kFloats.data())},
          {"alpha \"quoted\" \xc3\xa9",
           DType::kI32,
           {2},
           reinterpret_cast<const std::byte*>(kInts.data())},
          {"empty", DType::kBF16, {0, 4}, nullptr}};
}

TEST(SafetensorsWriter, WhatIsWrittenIsReadBack) {
  const ScratchDir dir;
  const std::string path = dir / "out.safetensors";
  ASSERT_TRUE(write_safetensors(path, two_tensors(), {{"info", "a \"test\""}}).ok());
  EXPECT_EQ(files_in(dir.path()), 1u);  // no temporary is left
  auto source = open_tensor_source(path);
  ASSERT_TRUE(source.ok()) << source.status().message();
  const TensorView* zeta = (*source)->find("zeta");
  ASSERT_NE(zeta, nullptr);
  EXPECT_EQ(zeta->shape, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(std::memcmp(zeta->data, kFloats.data(), 12), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(zeta->data) % 8, 0u);
  const TensorView* alpha = (*source)->find("alpha \"quoted\" \xc3\xa9");
  ASSERT_NE(alpha, nullptr);
  EXPECT_EQ(std::memcmp(alpha->data, kInts.data(), 8), 0);
  EXPECT_EQ((*source)->find("empty")->bytes, 0u);
  const std::string bytes = read_file(path);
  const auto header =
      parse_safetensors(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), path);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->metadata.at("info"), "a \"test\"");
}

TEST(SafetensorsWriter, StreamsInPieces) {
  const ScratchDir dir;
  const std::string path = dir / "out.safetensors";
  auto writer = SafetensorsWriter::create(path, two_tensors());
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->payload_bytes(), 20u);
  for (int i = 0; i < 12; ++i)
    ASSERT_TRUE((*writer)->write(reinterpret_cast<const char*>(kFloats.data()) + i, 1).ok());
  EXPECT_FALSE(std::filesystem::exists(path));  // not before it is whole
  EXPECT_NE((*writer)->finish().message().find("expected 20 payload bytes, got 12"),
            std::string::npos);
  ASSERT_TRUE((*writer)->write(kInts.data(), 8).ok());
  EXPECT_NE((*writer)->write("x", 1).message().find("got more"), std::string::npos);
  ASSERT_TRUE((*writer)->finish().ok());
  EXPECT_TRUE(open_tensor_source(path).ok());
}

TEST(SafetensorsWriter, AnUnfinishedFileLeavesNothing) {
  const ScratchDir dir;
  {
    auto writer = SafetensorsWriter::create(dir / "out.safetensors", two_tensors());
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->write(kFloats.data(), 12).ok());
    EXPECT_EQ(files_in(dir.path()), 1u);
  }
  EXPECT_EQ(files_in(dir.path()), 0u);
}

TEST(SafetensorsWriter, ReplacesRegularFilesOnly) {
  const ScratchDir dir;
  const auto refused = [&](const std::string& path, const std::string& why) {
    const Status s = write_safetensors(path, two_tensors());
    ASSERT_FALSE(s.ok()) << path;
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
    EXPECT_NE(s.message().find(path), std::string::npos) << s.message();
  };
  write_file(dir / "old", "something else");
  ASSERT_TRUE(write_safetensors(dir / "old", two_tensors()).ok());
  EXPECT_TRUE(open_safetensors_file(dir / "old").ok());
  refused(dir.path(), "got a directory");
  refused("/dev/null", "got a device");
  ASSERT_EQ(::symlink("old", (dir / "link").c_str()), 0);
  refused(dir / "link", "got a symbolic link");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  refused(dir / "fifo", "got a FIFO");
  refused(dir / "no/such/folder", "No such file");
  EXPECT_EQ(files_in(dir.path()), 3u);
}

TEST(SafetensorsWriter, BadDeclarations) {
  const ScratchDir dir;
  const auto refused = [&](const std::vector<TensorToWrite>& t, const std::string& why) {
    const Status s = write_safetensors(dir / "x", t);
    ASSERT_FALSE(s.ok());
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
  };
  refused({{"a", DType::kU8, {0}, nullptr}, {"a", DType::kU8, {0}, nullptr}}, "occurs twice");
  refused({{"__metadata__", DType::kU8, {0}, nullptr}}, "reserved");
  refused({{"a", DType::kU8, {-1}, nullptr}}, "sizes >= 0");
  refused({{"a", DType::kF32, {1LL << 40, 1LL << 40}, nullptr}}, "that fits");
  EXPECT_EQ(files_in(dir.path()), 0u);
}

// A full disk: every write past the file size limit fails.
TEST(SafetensorsWriter, AFullDiskIsACleanErrorAndLeavesNothing) {
  const ScratchDir dir;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 20, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::vector<std::byte> data(5 << 20);
  const Status s = write_safetensors(dir / "big", {{"a", DType::kU8, {5 << 20}, data.data()}});
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.message().find(dir / "big"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("cannot write after 1048576 bytes"), std::string::npos) << s.message();
  EXPECT_EQ(files_in(dir.path()), 0u);
}

}  // namespace
}  // namespace sluice
