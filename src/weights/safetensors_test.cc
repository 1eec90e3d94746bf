#include "weights/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "weights/test_files.h"

namespace sluice {
namespace {

Status open_status(const std::string& path) {
  auto source = open_tensor_source(path);
  return source.ok() ? ok_status() : source.status();
}

// Opens a file of these bytes and expects a clean error that names the file and says `why`.
void expect_refused(const std::string& bytes, const std::string& why) {
  const ScratchDir dir;
  const std::string path = dir / "x.safetensors";
  write_file(path, bytes);
  const Status s = open_status(path);
  ASSERT_FALSE(s.ok()) << why;
  EXPECT_NE(s.message().find(path), std::string::npos) << s.message();
  EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
}

const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
    R"("b":{"dtype":"U8","shape":[],"data_offsets":[12,13]},)"
    R"("c":{"dtype":"F32","shape":[0,7],"data_offsets":[13,13]}})";
const std::string kPayload = "0123456789abZ";

TEST(Safetensors, ReadsNamesShapesBytesAtAnyAlignment) {
  const ScratchDir dir;
  for (size_t padding = 0; padding < 9; ++padding) {
    const std::string path = dir / fmt::format("{}.safetensors", padding);
    write_file(path, safetensors_bytes(kHeader + std::string(padding, ' '), kPayload));
    auto source = open_tensor_source(path);
    ASSERT_TRUE(source.ok()) << source.status().message();
    ASSERT_EQ((*source)->tensors().size(), 3u);
    const TensorView* a = (*source)->find("a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->dtype, DType::kBF16);
    EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(a->elements(), 6);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->data), a->bytes), "0123456789ab");
    const TensorView* b = (*source)->find("b");
    ASSERT_NE(b, nullptr);
    EXPECT_TRUE(b->shape.empty());
    EXPECT_EQ(*reinterpret_cast<const char*>(b->data), 'Z');
    EXPECT_EQ((*source)->find("c")->bytes, 0u);
    EXPECT_EQ((*source)->find("d"), nullptr);
    EXPECT_EQ((*source)->where(), path);
    EXPECT_TRUE((*source)->health().ok());
  }
}

TEST(Safetensors, AFileCutAnywhereIsRefused) {
  const std::string whole = safetensors_bytes(kHeader, kPayload);
  const ScratchDir dir;
  const std::string path = dir / "cut.safetensors";
  for (size_t n = 0; n < whole.size(); ++n) {
    write_file(path, whole.substr(0, n));
    const Status s = open_status(path);
    ASSERT_FALSE(s.ok()) << n;
    ASSERT_NE(s.message().find(path), std::string::npos) << s.message();
  }
  write_file(path, whole);
  EXPECT_TRUE(open_status(path).ok());
  write_file(path, whole + "!");
  EXPECT_NE(open_status(path).message().find("expected 13 payload bytes by the header, got 14"),
            std::string::npos);
}

TEST(Safetensors, HeaderLengths) {
  expect_refused("", "at least 8 bytes");
  expect_refused(length_prefix(0), "expected it to start with '{', got nothing");
  expect_refused(length_prefix(3) + "{}", "at most 2 bytes (the rest of the file), got 3");
  expect_refused(length_prefix(100'000'001) + "{}", "at most 100000000 bytes, got 100000001");
  expect_refused(length_prefix(UINT64_MAX) + "{}", "got 18446744073709551615");
  expect_refused(length_prefix(UINT64_MAX - 7) + "{}", "header length");
  expect_refused(length_prefix(1ull << 63) + "{}", "header length");
}

TEST(Safetensors, HeaderJson) {
  const auto refused = [](const std::string& header, const std::string& why) {
    SCOPED_TRACE(header);
    expect_refused(safetensors_bytes(header, kPayload), why);
  };
  refused(" {}", "start with '{'");
  refused("[]", "start with '{'");
  refused("{", "not valid JSON");
  refused("{}x", "not valid JSON");
  refused("{\"a\":\xff}", "not valid JSON");
  refused("{\"\xc3\x28\":{}}", "not valid JSON");
  refused("{/* */}", "not valid JSON");
  refused(R"({"a":1,"a":2})", "occurs twice");
  refused(R"({"__metadata__":{},"__metadata__":{}})", "occurs twice");
  refused(R"({"__metadata__":[]})", "__metadata__: expected an object");
  refused(R"({"__metadata__":{"x":1}})", "expected a string, got 1");
  refused("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}", "nested deeper");
  refused(R"({"a":1})", "tensor a: expected an object, got 1");
  refused(R"({"a":{"dtype":"U8","shape":[13]}})", "expected dtype, shape and data_offsets");
  refused(R"({"a":{"dtype":"U8","shape":[13],"data_offsets":[0,13],"x":1}})", "unknown key");
}

TEST(Safetensors, TensorEntries) {
  const auto refused = [](const std::string& dtype, const std::string& shape,
                          const std::string& offsets, const std::string& why) {
    SCOPED_TRACE(dtype + " " + shape + " " + offsets);
    expect_refused(
        safetensors_bytes(fmt::format(R"({{"name":{{"dtype":{},"shape":{},"data_offsets":{}}}}})",
                                      dtype, shape, offsets),
                          kPayload),
        why);
    expect_refused(
        safetensors_bytes(fmt::format(R"({{"name":{{"dtype":{},"shape":{},"data_offsets":{}}}}})",
                                      dtype, shape, offsets),
                          kPayload),
        "tensor name");
  };
  refused("\"F7\"", "[13]", "[0,13]", "expected a safetensors type, got \"F7\"");
  refused("\"u8\"", "[13]", "[0,13]", "expected a safetensors type");
  refused("8", "[13]", "[0,13]", "dtype: expected a string, got 8");
  refused("null", "[13]", "[0,13]", "dtype: expected a string");
  refused("\"U8\"", "13", "[0,13]", "shape: expected a list, got 13");
  refused("\"U8\"", "[13.0]", "[0,13]", "non-negative integers");
  refused("\"U8\"", "[-13]", "[0,13]", "non-negative integers below 2^63, got -13");
  refused("\"U8\"", "[\"13\"]", "[0,13]", "non-negative integers");
  refused("\"U8\"", "[1e1]", "[0,13]", "non-negative integers");
  refused("\"U8\"", "[9223372036854775808]", "[0,13]", "below 2^63");
  refused("\"U8\"", "[99999999999999999999999]", "[0,13]", "non-negative integers");
  refused("\"U8\"", "[4294967296,4294967296]", "[0,13]", "overflows 2^64");
  refused("\"U8\"", "[4294967296,0,4294967296]", "[0,0]", "overflows 2^64");
  refused("\"F64\"", "[2305843009213693952]", "[0,0]", "overflows 2^64");
  refused("\"U8\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,13]", "[0,13]", "at most 16 dimensions");
  refused("\"F4\"", "[13]", "[0,6]", "whole number of bytes");
  refused("\"F6_E2M3\"", "[3]", "[0,2]", "whole number of bytes");
  refused("\"U8\"", "[13]", "[13,0]", "begin <= end");
  refused("\"U8\"", "[13]", "[0,14]", "<= 13 (the payload's bytes)");
  refused("\"U8\"", "[13]", "[-1,12]", "two non-negative integers");
  refused("\"U8\"", "[13]", "[0,13.0]", "two non-negative integers");
  refused("\"U8\"", "[13]", "[0]", "two non-negative integers");
  refused("\"U8\"", "[13]", "[0,6,13]", "two non-negative integers");
  refused("\"U8\"", "[13]", "\"0,13\"", "two non-negative integers");
  refused("\"U8\"", "[12]", "[0,13]", "expected 12 bytes for U8 [12], got 13");
  refused("\"BF16\"", "[13]", "[0,13]", "expected 26 bytes");
}

TEST(Safetensors, RangesMustTileThePayload) {
  const auto two = [](int a0, int a1, int b0, int b1) {
    return safetensors_bytes(
        fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                    R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                    a1 - a0, a0, a1, b1 - b0, b0, b1),
        kPayload);
  };
  expect_refused(two(0, 6, 5, 13), "tensor b: overlaps another tensor");
  expect_refused(two(0, 13, 0, 13), "overlaps another tensor");
  expect_refused(two(0, 6, 7, 13), "a hole before it: expected to start at 6, got 7");
  expect_refused(two(1, 6, 6, 13), "expected to start at 0, got 1");
  expect_refused(two(0, 6, 6, 12), "expected 12 payload bytes by the header, got 13");
  expect_refused(safetensors_bytes("{}", kPayload), "expected 0 payload bytes");
  const ScratchDir dir;
  write_file(dir / "ok.safetensors", two(6, 13, 0, 6));  // the header's order is free
  EXPECT_TRUE(open_status(dir / "ok.safetensors").ok());
  write_file(dir / "none.safetensors", safetensors_bytes("{}", ""));
  EXPECT_TRUE(open_status(dir / "none.safetensors").ok());
}

TEST(Safetensors, OnlyRegularFiles) {
  const ScratchDir dir;
  const auto refused = [&](const std::string& path, const std::string& why) {
    const Status s = open_safetensors_file(path).status();
    ASSERT_FALSE(s.ok()) << path;
    EXPECT_NE(s.message().find(path), std::string::npos) << s.message();
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
  };
  refused(dir.path(), "got a directory");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  refused(dir / "fifo", "got a FIFO");  // must not wait for a writer
  refused("/dev/zero", "got a device");
  refused(dir / "absent", "No such file");
  ASSERT_EQ(::symlink("loop", (dir / "loop").c_str()), 0);
  refused(dir / "loop", "symbolic links");
  write_file(dir / "file", "x");
  refused(dir / "file/below", "Not a directory");
  if (::geteuid() != 0) {
    ASSERT_EQ(::chmod((dir / "file").c_str(), 0), 0);
    refused(dir / "file", "Permission denied");
  }
  EXPECT_NE(open_status(dir.path())
                .message()
                .find("expected model.safetensors.index.json or "
                      "model.safetensors"),
            std::string::npos);
}

TEST(Safetensors, RandomBytesNeverCrash) {
  std::mt19937 random(7);
  const std::string whole = safetensors_bytes(kHeader, kPayload);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto parsed =
        parse_safetensors(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), "mem");
    if (!parsed.ok()) continue;
    for (const TensorView& t : parsed->tensors) {
      ASSERT_GE(t.data, reinterpret_cast<const std::byte*>(bytes.data()));
      ASSERT_LE(t.data + t.bytes, reinterpret_cast<const std::byte*>(bytes.data() + bytes.size()));
    }
  }
}

// --- directories ---

std::string tensor_file(const std::string& names) {
  std::string header = "{", payload;
  for (char name : names) {
    if (header.size() > 1) header += ',';
    header += fmt::format(R"("{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})", name,
                          payload.size(), payload.size() + 1);
    payload += name;
  }
  return safetensors_bytes(header + "}", payload);
}

class SafetensorsIndex : public testing::Test {
 protected:
  SafetensorsIndex() {
    write_file(dir_ / "1.safetensors", tensor_file("ab"));
    write_file(dir_ / "2.safetensors", tensor_file("c"));
  }
  void index(const std::string& text) { write_file(dir_ / "model.safetensors.index.json", text); }
  void map(const std::string& entries) {
    index(R"({"metadata":{"total_size":1},"weight_map":{)" + entries + "}}");
  }
  void expect_refused(const std::string& why) {
    const Status s = open_status(dir_.path());
    ASSERT_FALSE(s.ok()) << why;
    EXPECT_NE(s.message().find("model.safetensors.index.json"), std::string::npos) << s.message();
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
  }
  ScratchDir dir_;
};

TEST_F(SafetensorsIndex, ReadsShards) {
  map(R"("a":"1.safetensors","b":"1.safetensors","c":"2.safetensors")");
  auto source = open_tensor_source(dir_.path());
  ASSERT_TRUE(source.ok()) << source.status().message();
  for (const char* name : {"a", "b", "c"}) {
    const TensorView* t = (*source)->find(name);
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(*reinterpret_cast<const char*>(t->data), *name);
  }
  EXPECT_EQ((*source)->find("c")->file, dir_ / "2.safetensors");
  EXPECT_TRUE((*source)->warnings().empty());
}

TEST_F(SafetensorsIndex, ATensorOutsideTheMapIsAWarning) {
  map(R"("a":"1.safetensors","c":"2.safetensors")");
  auto source = open_tensor_source(dir_.path());
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->find("b"), nullptr);
  ASSERT_EQ((*source)->warnings().size(), 1u);
  EXPECT_NE((*source)->warnings()[0].find("tensor b of"), std::string::npos);
}

TEST_F(SafetensorsIndex, WhatIsRefused) {
  map(R"("a":"1.safetensors","c":"3.safetensors")");
  expect_refused("3.safetensors: cannot open: No such file");
  map(R"("a":"1.safetensors","c":"1.safetensors")");
  expect_refused("tensor c: expected in shard 1.safetensors, which does not have it");
  write_file(dir_ / "2.safetensors", tensor_file("bc"));
  map(R"("a":"1.safetensors","b":"1.safetensors","c":"2.safetensors")");
  expect_refused("tensor b: stored in two shards, 1.safetensors and 2.safetensors");
  for (const char* name : {"../1.safetensors", "/etc/passwd", "sub/1.safetensors", "..", ".", "",
                           "a\\\\b", "a\\u0000b", "a\\nb"}) {
    map(fmt::format(R"("a":"{}")", name));
    expect_refused("expected a plain file name");
  }
  map(R"("a":1)");
  expect_refused("tensor a: expected a file name, got 1");
  map(R"("a":"1.safetensors","a":"1.safetensors")");
  expect_refused("occurs twice");
  map("");
  expect_refused("at least one tensor");
  index("{}");
  expect_refused("weight_map");
  index(R"({"weight_map":[]})");
  expect_refused("weight_map");
  index("[]");
  expect_refused("weight_map");
  index("\xEF\xBB\xBF{}");
  expect_refused("byte order mark");
  index("{} // comment");
  expect_refused("not valid JSON");
  index("");
  expect_refused("not valid JSON");
}

TEST_F(SafetensorsIndex, AShardThatIsNoFileIsRefused) {
  std::filesystem::create_directory(dir_ / "3.safetensors");
  map(R"("a":"1.safetensors","c":"3.safetensors")");
  expect_refused("got a directory");
  std::filesystem::remove(dir_ / "3.safetensors");
  ASSERT_EQ(::mkfifo((dir_ / "3.safetensors").c_str(), 0600), 0);
  expect_refused("got a FIFO");
}

}  // namespace
}  // namespace sluice
