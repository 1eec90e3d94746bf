// Where the Unicode tables of published tokenizers differ from those of libutf8proc.
//
// A tokenizer runs with two tables at once: Oniguruma's for regular expressions (Unicode 16) and
// the older one of the Rust normaliser (about Unicode 9). Debian's libutf8proc 2.8 knows Unicode
// 15. The lists were found by asking both about every code point; test_every_code_point of
// tests/oracle/test_tokenizer.py asks again.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

struct CodePointRange {
  uint32_t first, last;
};
struct ClassRange {
  uint32_t first, last;
  uint8_t char_class;
};

// Assigned after Unicode 15; the general category decides as for any other character.
inline constexpr uint8_t kUpper = 1 | 32, kLower = 1 | 64, kOther = 1 | 32 | 64,
                         kMarks = 4 | 32 | 64, kDigits = 2;
inline constexpr ClassRange kAssignedLater[] = {
    {0x897, 0x897, kMarks},      {0x1C89, 0x1C89, kUpper},    {0x1C8A, 0x1C8A, kLower},
    {0xA7CB, 0xA7CC, kUpper},    {0xA7CD, 0xA7CD, kLower},    {0xA7DA, 0xA7DA, kUpper},
    {0xA7DB, 0xA7DB, kLower},    {0xA7DC, 0xA7DC, kUpper},    {0x105C0, 0x105F3, kOther},
    {0x10D40, 0x10D49, kDigits}, {0x10D4A, 0x10D4F, kOther},  {0x10D50, 0x10D65, kUpper},
    {0x10D69, 0x10D6D, kMarks},  {0x10D6F, 0x10D6F, kOther},  {0x10D70, 0x10D85, kLower},
    {0x10EC2, 0x10EC4, kOther},  {0x10EFC, 0x10EFC, kMarks},  {0x11380, 0x11389, kOther},
    {0x1138B, 0x1138B, kOther},  {0x1138E, 0x1138E, kOther},  {0x11390, 0x113B5, kOther},
    {0x113B7, 0x113B7, kOther},  {0x113B8, 0x113C0, kMarks},  {0x113C2, 0x113C2, kMarks},
    {0x113C5, 0x113C5, kMarks},  {0x113C7, 0x113CA, kMarks},  {0x113CC, 0x113D0, kMarks},
    {0x113D1, 0x113D1, kOther},  {0x113D2, 0x113D2, kMarks},  {0x113D3, 0x113D3, kOther},
    {0x113E1, 0x113E2, kMarks},  {0x116D0, 0x116E3, kDigits}, {0x11BC0, 0x11BE0, kOther},
    {0x11BF0, 0x11BF9, kDigits}, {0x11F5A, 0x11F5A, kMarks},  {0x13460, 0x143FA, kOther},
    {0x16100, 0x1611D, kOther},  {0x1611E, 0x1612F, kMarks},  {0x16130, 0x16139, kDigits},
    {0x16D40, 0x16D6C, kOther},  {0x16D70, 0x16D79, kDigits}, {0x18CFF, 0x18CFF, kOther},
    {0x1CCF0, 0x1CCF9, kDigits}, {0x1E5D0, 0x1E5ED, kOther},  {0x1E5EE, 0x1E5EF, kMarks},
    {0x1E5F0, 0x1E5F0, kOther},  {0x1E5F1, 0x1E5FA, kDigits}, {0x2EBF0, 0x2EE5D, kOther}};

// Marks that the normaliser takes for ordinary characters: it neither reorders nor composes them.
inline constexpr CodePointRange kUnorderedMarks[] = {
    {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10EFC, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x113B8, 0x113E2},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1E5EE, 0x1E5EF}};

// Composed characters that the normaliser neither takes apart nor makes.
inline constexpr CodePointRange kUncomposed[] = {
    {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x11383, 0x11385}, {0x1138E, 0x11391},
    {0x113C5, 0x113C8}, {0x11938, 0x11938}, {0x16121, 0x16128}, {0x16D68, 0x16D6A}};

// The range that holds `c`, or null; `ranges` ascend.
template <class Range, size_t N>
const Range* find_range(const Range (&ranges)[N], uint32_t c) {
  size_t low = 0;
  size_t high = N;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (c > ranges[middle].last) {
      low = middle + 1;
    } else if (c < ranges[middle].first) {
      high = middle;
    } else {
      return &ranges[middle];
    }
  }
  return nullptr;
}

}  // namespace sluice
