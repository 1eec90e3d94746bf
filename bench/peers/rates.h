// What this machine's arithmetic can do on registers with all workers: the other half of the roof.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "device/device.h"

namespace peers {

// GOP/s (a multiply-add is two): "fma" in f32; "bf16" and "int8" by the machine's fastest
// instruction for each that the context's ISA allows: tiles, else vector dot products, else FMA.
std::vector<std::pair<std::string, double>> rates(const sluice::ExecContext& context);

// Sum of `count` floats (a multiple of 128) by the widest loads of the ISA.
using SumKernel = float (*)(const float* data, int64_t count);
SumKernel sum_kernel(sluice::Isa isa);

// rounds x the operations that the function says, in one thread.
void tile_int8_rounds(int64_t rounds);  // 4 x 32768 operations a round
void tile_bf16_rounds(int64_t rounds);  // 4 x 16384
void dot_int8_rounds(int64_t rounds);   // 12 x 128, vpdpbusd on 512 bits
void pair_int8_rounds(int64_t rounds);  // 8 x 64, three AVX2 instructions each

}  // namespace peers
