// The packed store's file: what is written comes back, and nothing else is taken for it.
#include "weights/store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <random>

#include "weights/checksum.h"
#include "weights/store_writer.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

StoreHeader plan() {
  StoreHeader h{.fits_f32 = true, .fits_bf16 = true, .model = "my model", .options = "--weights x"};
  const auto add = [&](std::string name, WeightFormat format, WeightLayout layout, int64_t n,
                       int64_t k, int64_t block = 0) {
    h.entries.push_back({.name = std::move(name), .role = "experts", .format = format});
    h.entries.back().layout = layout;
    h.entries.back().n = n;
    h.entries.back().k = k;
    h.entries.back().block = block;
  };
  add("a", WeightFormat::kBF16, WeightLayout::kPanel16, 40, 70);
  add("b", WeightFormat::kMXFP4, WeightLayout::kGluPanel16, 48, 64);
  add("c", WeightFormat::kInt4, WeightLayout::kPanel16, 17, 600, 256);
  add("rows", WeightFormat::kF16, WeightLayout::kRowMajor, 5, 7);
  add("large", WeightFormat::kF32, WeightLayout::kPanel16, 128, 200);
  add("vector", WeightFormat::kF32, WeightLayout::kPanel16, 9, 0);
  h.entries.back().vector = true;
  return h;
}

std::string random_bytes(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}
std::string payload_of(const StoreHeader& h, size_t i) {
  return random_bytes(h.entries[i].bytes, static_cast<unsigned>(i));
}

Status write_entry(StoreWriter& writer, size_t i) {
  const std::string bytes = payload_of(writer.header(), i);
  const size_t half = bytes.size() / 2;
  SLUICE_RETURN_IF_ERROR(writer.write(i, half, bytes.data() + half, bytes.size() - half));
  SLUICE_RETURN_IF_ERROR(writer.write(i, 0, bytes.data(), half));
  return writer.finish(i, checksum(bytes.data(), bytes.size()), {0.25, 4.0, 0.5});
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() { write_file(config_, "{}"); }
  Result<std::unique_ptr<StoreWriter>> create(uint64_t inputs = 7) {
    return StoreWriter::create(store_, plan(), inputs, {config_});
  }
  void write_all() {
    const auto writer = create();
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    for (size_t i = 0; i < (*writer)->header().entries.size(); ++i) {
      const Status s = write_entry(**writer, i);
      ASSERT_TRUE(s.ok()) << s.message();
    }
    const Status s = (*writer)->commit();
    ASSERT_TRUE(s.ok()) << s.message();
  }
  std::string file() const { return store_ + "/weights.sluice"; }
  Result<std::unique_ptr<PackedStore>> open() const { return PackedStore::open(store_); }
  // Opened and verified.
  Status check() const {
    SLUICE_ASSIGN_OR_RETURN(const auto store, open());
    ThreadPool pool(2);
    return store->verify(pool, nullptr);
  }
  // Refused with `says`, and with the command that makes the store again.
  void expect_refused(const Status& status, const std::string& says) const {
    ASSERT_FALSE(status.ok()) << says;
    EXPECT_NE(status.message().find(says), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("sluice pack "), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(" -o " + store_), std::string::npos) << status.message();
  }

  const ScratchDir dir_;
  const std::string store_ = dir_ / "store", config_ = dir_ / "config.json";
};

TEST_F(StoreTest, WhatIsWrittenComesBack) {
  write_all();
  const auto store = open();
  ASSERT_TRUE(store.ok()) << store.status().message();
  const StoreHeader& h = (*store)->header();
  EXPECT_EQ(h.model, "my model");
  EXPECT_EQ((*store)->remake(), "sluice pack 'my model' -o " + store_ + " --weights x");
  ASSERT_EQ(h.entries.size(), plan().entries.size());
  for (size_t i = 0; i < h.entries.size(); ++i) {
    const StoreEntry& e = h.entries[i];
    const StoreEntry want = plan().entries[i];
    EXPECT_EQ(e.name, want.name);
    EXPECT_EQ(e.format, want.format);
    EXPECT_EQ(e.error, 0.25);
    EXPECT_EQ(e.signal, 4.0);
    EXPECT_EQ(e.offset % (e.bytes >= 65536 ? 4096 : 64), 0u) << e.name;
    const std::string bytes = payload_of(h, i);
    if (e.vector) {
      EXPECT_EQ(std::memcmp((*store)->vector(e).data(), bytes.data(), bytes.size()), 0);
      continue;
    }
    const PackedMatrix m = (*store)->matrix(e);
    EXPECT_EQ(m.storage, StorageKind::kMapped);
    EXPECT_EQ(m.layout, want.layout);
    EXPECT_EQ(m.n, want.n);
    EXPECT_EQ(m.k, want.k);
    EXPECT_EQ(m.bytes, packed_bytes(m.format, m.layout, m.n, m.k, m.block));
    EXPECT_EQ(std::memcmp(m.data, bytes.data(), bytes.size()), 0) << e.name;
  }
  EXPECT_TRUE(check().ok());
  EXPECT_EQ((*store)->entry("none"), nullptr);
  ASSERT_NE((*store)->find("rows"), nullptr);
  EXPECT_EQ((*store)->find("rows")->dtype, DType::kF16);
  EXPECT_FALSE(fs::exists(store_ + ".partial"));
  EXPECT_FALSE(fs::exists(store_ + "/journal"));
}

TEST_F(StoreTest, AMatrixOutlivesTheStore) {
  write_all();
  auto store = open();
  ASSERT_TRUE(store.ok());
  const PackedMatrix m = (*store)->matrix(*(*store)->entry("a"));
  const std::string bytes = payload_of((*store)->header(), 0);
  store->reset();
  EXPECT_EQ(std::memcmp(m.data, bytes.data(), bytes.size()), 0);
}

TEST_F(StoreTest, CutAnywhereInTheFrontIsRefused) {
  write_all();
  const std::string whole = read_file(file());
  const auto parse = [&](size_t bytes) {
    // A copy of exactly this size, so that a sanitizer sees reading past it.
    const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes));
    return parse_store(reinterpret_cast<const std::byte*>(cut.data()), bytes, file()).status();
  };
  ASSERT_TRUE(parse(whole.size()).ok());
  for (size_t bytes = 0; bytes < 4096 + 1200; ++bytes) {
    const Status s = parse(bytes);
    ASSERT_FALSE(s.ok()) << bytes;
    ASSERT_NE(s.message().find("sluice pack"), std::string::npos) << s.message();
  }
}

TEST_F(StoreTest, CutAtEveryPageIsRefused) {
  write_all();
  const std::string whole = read_file(file());
  ASSERT_GT(whole.size(), 20u * 4096);
  for (size_t bytes = 0; bytes < whole.size(); bytes += 4096) {
    write_file(file(), whole.substr(0, bytes));
    expect_refused(open().status(), bytes == 0 ? "not a packed store" : "expected");
  }
  write_file(file(), whole.substr(0, whole.size() - 1));
  expect_refused(open().status(), "cut or changed");
  write_file(file(), whole + "x");
  expect_refused(open().status(), "cut or changed");
}

TEST_F(StoreTest, AnyFlippedByteOfHeaderOrIndexIsRefused) {
  write_all();
  std::string bytes = read_file(file());
  const auto parse = [&] {
    return parse_store(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), file());
  };
  uint64_t index = 0;
  std::memcpy(&index, bytes.data() + 32, 8);
  ASSERT_GT(index, 400u);
  for (size_t at = 0; at < 4096 + index; ++at) {
    for (const int bit : {1, 0x80}) {
      bytes[at] = static_cast<char>(bytes[at] ^ bit);
      ASSERT_FALSE(parse().ok()) << at;
      bytes[at] = static_cast<char>(bytes[at] ^ bit);
    }
  }
  EXPECT_TRUE(parse().ok());
}

TEST_F(StoreTest, AFlippedByteOfATensorIsFoundByVerify) {
  write_all();
  const std::string whole = read_file(file());
  const auto store = open();
  ASSERT_TRUE(store.ok());
  for (const StoreEntry& e : (*store)->header().entries) {
    for (const uint64_t at : {e.offset, e.offset + e.bytes / 2, e.offset + e.bytes - 1}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ 16);
      write_file(file(), bytes);
      EXPECT_TRUE(open().ok());  // opening does not read tensors
      expect_refused(check(), "tensor " + e.name + " is damaged");
    }
  }
}

TEST_F(StoreTest, AnotherVersionLayoutOrByteOrderIsRefused) {
  write_all();
  const std::string whole = read_file(file());
  const auto with = [&](size_t at, uint32_t v) {
    std::string bytes = whole;
    std::memcpy(bytes.data() + at, &v, 4);
    write_file(file(), bytes);
    return open().status();
  };
  expect_refused(with(8, kStoreVersion + 1), "this build reads version");
  expect_refused(with(16, kPanelLayoutId + 1), "panel layout");
  expect_refused(with(12, 0x04030201), "byte order");
}

TEST_F(StoreTest, AFileBesideThatChangedIsRefused) {
  write_all();
  write_file(store_ + "/config.json", "{ }");
  expect_refused(open().status(), "config.json");
  fs::remove(store_ + "/config.json");
  EXPECT_FALSE(open().ok());
}

TEST_F(StoreTest, ATruncatedFileInUseIsDataLossNotASignal) {
  write_all();
  const auto store = open();
  ASSERT_TRUE(store.ok());
  ASSERT_EQ(::truncate(file().c_str(), 8192), 0);
  ThreadPool pool(2);
  EXPECT_EQ((*store)->verify(pool, nullptr).code(), StatusCode::kDataLoss);
  EXPECT_EQ((*store)->health().code(), StatusCode::kDataLoss);
}

TEST_F(StoreTest, AnInterruptedPackGoesOn) {
  {
    const auto writer = create();
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ((*writer)->resumed(), 0u);
    for (const size_t i : {0u, 2u, 4u}) ASSERT_TRUE(write_entry(**writer, i).ok());
  }
  EXPECT_FALSE(fs::exists(store_));
  // The bytes of one are damaged meanwhile, and the last journal line was cut.
  const std::string partial = store_ + ".partial/weights.sluice";
  std::string bytes = read_file(partial);
  {
    StoreHeader h = plan();
    h.files.push_back({"config.json", 2, 0});
    lay_out_store(h);
    bytes[h.entries[2].offset] = static_cast<char>(bytes[h.entries[2].offset] ^ 1);
  }
  write_file(partial, bytes);
  write_file(store_ + ".partial/journal", read_file(store_ + ".partial/journal") + "done 5 0123");
  const auto writer = create();
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  EXPECT_EQ((*writer)->resumed(), 2u);
  EXPECT_TRUE((*writer)->done(0));
  EXPECT_FALSE((*writer)->done(2));
  EXPECT_FALSE((*writer)->commit().ok());  // not all are there
  for (const size_t i : {1u, 2u, 3u, 5u}) ASSERT_TRUE(write_entry(**writer, i).ok());
  ASSERT_TRUE((*writer)->commit().ok());
  const Status s = check();
  EXPECT_TRUE(s.ok()) << s.message();
}

TEST_F(StoreTest, AResumedStoreHasTheBytesOfAnUninterruptedOne) {
  write_all();
  const std::string whole = read_file(file());
  fs::remove_all(store_);
  {
    const auto writer = create();
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(write_entry(**writer, 3).ok());
  }
  write_file(store_ + ".partial/journal", read_file(store_ + ".partial/journal") + "nonsense\n");
  const auto writer = create();
  ASSERT_TRUE(writer.ok());
  for (size_t i = 0; i < plan().entries.size(); ++i) {
    if ((*writer)->done(i)) continue;
    ASSERT_TRUE(write_entry(**writer, i).ok());
  }
  ASSERT_TRUE((*writer)->commit().ok());
  EXPECT_EQ(read_file(file()), whole);
}

TEST_F(StoreTest, OtherInputsOrAnotherPlanStartAnew) {
  {
    const auto writer = create(1);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(write_entry(**writer, 0).ok());
  }
  {
    const auto same = create(1);
    ASSERT_TRUE(same.ok());
    EXPECT_EQ((*same)->resumed(), 1u);
  }
  const auto other = create(2);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ((*other)->resumed(), 0u);
}

TEST_F(StoreTest, TwoPacksAtATimeAreRefused) {
  const auto first = create();
  ASSERT_TRUE(first.ok());
  const auto second = create();
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("another pack"), std::string::npos);
}

TEST_F(StoreTest, AStoreIsReplacedWholeAndAnythingElseIsLeftAlone) {
  write_all();
  write_file(file(), "damaged");
  write_all();
  EXPECT_TRUE(check().ok());
  EXPECT_FALSE(fs::exists(store_ + ".partial"));
  write_file(store_ + "/notes.txt", "mine");
  const auto writer = create();
  ASSERT_FALSE(writer.ok());
  EXPECT_NE(writer.status().message().find("notes.txt"), std::string::npos);
  EXPECT_TRUE(fs::exists(store_ + "/notes.txt"));
  fs::remove_all(store_);
  write_file(store_, "a file");
  EXPECT_FALSE(create().ok());
}

TEST_F(StoreTest, AFullDiskIsASentenceAndNothingIsLost) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 64 << 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto full = create();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted) << full.status().message();
  EXPECT_NE(full.status().message().find(".partial"), std::string::npos);
  EXPECT_FALSE(fs::exists(store_));
  write_all();  // once there is room
  EXPECT_TRUE(check().ok());
}

TEST_F(StoreTest, AFailedWriteOfATensorKeepsTheOthers) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  {
    const auto writer = create();
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(write_entry(**writer, 0).ok());
    rlimit small = before;
    small.rlim_cur = (*writer)->header().entries[4].offset;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const Status failed = write_entry(**writer, 4);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(failed.code(), StatusCode::kResourceExhausted) << failed.message();
  }
  const auto writer = create();
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->resumed(), 1u);
}

TEST(StoreCommand, IsQuotedAndHasNoControlBytes) {
  EXPECT_EQ(pack_command("", "s", ""), "sluice pack MODEL -o s");
  EXPECT_EQ(pack_command("a b", "it's", "--weights int4"),
            "sluice pack 'a b' -o 'it'\\''s' --weights int4");
  EXPECT_EQ(pack_command("a\x1b[31m", "s", "x\ny"), "sluice pack 'a?[31m' -o s x?y");
}

}  // namespace
}  // namespace sluice
