// Strict JSON: what is refused, what the refusal says, and that nothing deep or large hurts.
#include "base/json.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <clocale>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace sluice {
namespace {

std::string failure(std::string_view text, const JsonLimits& limits = {}) {
  const auto r = parse_json(text, "some.json", limits);
  return r.ok() ? "" : r.status().message();
}

TEST(Json, AcceptsWhatTheStandardAccepts) {
  for (const std::string_view text :
       {"{}", "[]", "null", "true", "-0", "1e3", "\"\"", " \t\r\n1 ", "[1,[2,{\"a\":[]}]]",
        "\"\\u0041\\ud83d\\ude00\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "18446744073709551615",
        "123456789012345678901234567890", "{\"\":0}", "\"\xF0\x9F\x98\x80\"", "[\"\\u0000\"]"})
    EXPECT_EQ(failure(text), "") << text;
  EXPECT_EQ(parse_json("\"\\ud83d\\ude00\"", "x").value().get<std::string>(), "\xF0\x9F\x98\x80");
  EXPECT_EQ(parse_json("18446744073709551615", "x").value().get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(parse_json("-9223372036854775808", "x").value().get<int64_t>(), INT64_MIN);
  EXPECT_TRUE(parse_json("123456789012345678901234567890", "x").value().is_number_float());
}

TEST(Json, KeepsStructure) {
  const auto r = parse_json("{\"a\":[1,{\"b\":[[],{}]},2.5],\"c\":{\"d\":null,\"e\":\"f\"}}", "x");
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->dump(), "{\"a\":[1,{\"b\":[[],{}]},2.5],\"c\":{\"d\":null,\"e\":\"f\"}}");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const std::string_view text : {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "[1 2]",
                                      "01",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "1e",
                                      "0x10",
                                      "NaN",
                                      "Infinity",
                                      "-",
                                      "nul",
                                      "True",
                                      "\"",
                                      "\"\\x41\"",
                                      "\"\\u12\"",
                                      "\"\\ud83d\"",
                                      "\"\\ude00\\ud83d\"",
                                      "\"\n\"",
                                      "\"\x01\"",
                                      "// c\n1",
                                      "/* c */1",
                                      "1 2",
                                      "{}{}",
                                      "[]]",
                                      "1e999",
                                      "-1e999",
                                      "\xEF\xBB\xBF{}",
                                      "\xFE\xFF",
                                      "\"\xC3\"",
                                      "\"\xC0\x80\"",
                                      "\"\xED\xA0\x80\"",
                                      "\"\xF5\x80\x80\x80\"",
                                      "\"\xFF\""})
    EXPECT_NE(failure(text), "") << text;
  EXPECT_NE(failure(std::string_view("1\0", 2)), "");
  EXPECT_NE(failure(std::string_view("{}\0{", 4)).find("at byte 2: a NUL byte"), std::string::npos);
  EXPECT_NE(failure(std::string_view("\"a\0b\"", 5)), "");
}

TEST(Json, SaysWhereAndWhat) {
  EXPECT_EQ(failure("[1, }").substr(0, 34), "some.json: not valid JSON at byte ");
  EXPECT_NE(failure("{\"a\":1,\"a\":2}").find("key \"a\" occurs twice"), std::string::npos);
  EXPECT_NE(failure("{\"x\":{\"a\":1,\"b\":{\"a\":1},\"a\":2}}").find("occurs twice"),
            std::string::npos);
  EXPECT_EQ(failure("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"), "");  // different objects
  JsonLimits lax;
  lax.reject_duplicate_keys = false;
  EXPECT_EQ(failure("{\"a\":1,\"a\":2}", lax), "");
  EXPECT_NE(failure("\xEF\xBB\xBF{}").find("byte order mark"), std::string::npos);
  EXPECT_EQ(parse_json("[", "x").status().code(), StatusCode::kDataLoss);
}

TEST(Json, BoundsDepthAndCount) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(failure(nested(64)), "");
  EXPECT_NE(failure(nested(65)).find("nested deeper than 64"), std::string::npos);
  EXPECT_NE(failure(nested(1'000'000)).find("nested deeper"), std::string::npos);
  EXPECT_NE(failure(std::string(1'000'000, '[')).find("nested deeper"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_NE(failure(objects).find("nested deeper"), std::string::npos);
  JsonLimits few;
  few.max_values = 4;
  EXPECT_EQ(failure("[1,2,3]", few), "");
  EXPECT_NE(failure("[1,2,3,4]", few).find("more than 4 JSON values"), std::string::npos);
}

TEST(Json, NumbersDoNotDependOnTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  const char* comma = nullptr;
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE.utf8", "fr_FR.utf8"})
    if (comma == nullptr) comma = std::setlocale(LC_ALL, name);
  if (comma == nullptr) GTEST_SKIP() << "no locale with a decimal comma is installed";
  EXPECT_EQ(parse_json("1.5", "x").value().get<double>(), 1.5);
  EXPECT_NE(failure("1,5"), "");
  std::setlocale(LC_ALL, before.c_str());
}

class JsonFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice_json_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string write(const std::string& text) {
    const std::string path = dir_ + "/file.json";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string dir_;
};

TEST_F(JsonFile, ReadsARegularFile) {
  EXPECT_EQ(read_json_file(write("{\"a\": [1]}")).value().dump(), "{\"a\":[1]}");
  EXPECT_EQ(read_text_file(write("abc"), 3).value(), "abc");
  EXPECT_EQ(read_text_file(write(""), 3).value(), "");
}

TEST_F(JsonFile, RefusesEverythingElseWithoutHanging) {
  EXPECT_EQ(read_json_file(dir_ + "/absent.json").status().code(), StatusCode::kNotFound);
  EXPECT_NE(read_json_file(dir_).status().message().find("got a directory"), std::string::npos);
  const std::string fifo = dir_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(read_json_file(fifo).status().message().find("got a special file"), std::string::npos);
  EXPECT_FALSE(read_json_file("/dev/zero").ok());
  const std::string path = write("[1,2,3]");
  EXPECT_NE(read_json_file(path, 6).status().message().find("7 bytes, at most 6"),
            std::string::npos);
  const auto bad = read_json_file(write("[1,2"));
  EXPECT_NE(bad.status().message().find(path), std::string::npos);
}

}  // namespace
}  // namespace sluice
