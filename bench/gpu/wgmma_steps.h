// wgmma.mma_async m64nN, one step of 32 bytes of k: d = a b^T (+ d when `add`). A and B from shared
// memory through descriptors; the _register forms take A from registers.
#pragma once

#include "bench/gpu/hopper.h"

#if defined(PROBE_SM90A)
// clang-format off
#define PROBE_D4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define PROBE_D8(d, i) PROBE_D4(d, i), PROBE_D4(d, (i) + 4)
#define PROBE_D16(d, i) PROBE_D8(d, i), PROBE_D8(d, (i) + 8)
#define PROBE_D32(d, i) PROBE_D16(d, i), PROBE_D16(d, (i) + 16)
#define PROBE_D64(d, i) PROBE_D32(d, i), PROBE_D32(d, (i) + 32)
#define PROBE_D128(d, i) PROBE_D64(d, i), PROBE_D64(d, (i) + 64)
#define PROBE_N4 "%0, %1, %2, %3"
#define PROBE_N8 PROBE_N4 ", %4, %5, %6, %7"
#define PROBE_N16 PROBE_N8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PROBE_N32 PROBE_N16 \
  ", %16, %17, %18, %19, %20, %21, %22, %23" \
  ", %24, %25, %26, %27, %28, %29, %30, %31"
#define PROBE_N64 PROBE_N32 \
  ", %32, %33, %34, %35, %36, %37, %38, %39" \
  ", %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55" \
  ", %56, %57, %58, %59, %60, %61, %62, %63"
#define PROBE_N128 PROBE_N64 \
  ", %64, %65, %66, %67, %68, %69, %70, %71" \
  ", %72, %73, %74, %75, %76, %77, %78, %79" \
  ", %80, %81, %82, %83, %84, %85, %86, %87" \
  ", %88, %89, %90, %91, %92, %93, %94, %95" \
  ", %96, %97, %98, %99, %100, %101, %102, %103" \
  ", %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119" \
  ", %120, %121, %122, %123, %124, %125, %126, %127"
// The operands after the R accumulators: A's descriptor or registers, B's descriptor, `add`.
#define PROBE_WGMMA(N, R, TYPES, A, B, P, TAIL)                                                \
  "{\n.reg .pred add;\nsetp.ne.b32 add, %" P ", 0;\n"                                          \
  "wgmma.mma_async.sync.aligned.m64n" #N TYPES " {" PROBE_N##R "}, " A ", %" B ", add, 1, 1" TAIL \
  ";\n}\n"
// clang-format on

namespace sluice::probe {

// N / 2 accumulators a thread.
template <int N>
struct Wgmma;

template <>
struct Wgmma<8> {
  static __device__ void bf16(float (&d)[4], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(8, 4, "k16.f32.bf16.bf16", "%4", "5", "6", ", 0, 0")
                 : PROBE_D4(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[4], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(8, 4, "k32.f32.e4m3.e4m3", "%4", "5", "6", "")
                 : PROBE_D4(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[4], const uint32_t (&a)[4], uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(8, 4, "k16.f32.bf16.bf16", "{%4, %5, %6, %7}", "8", "9", ", 0")
                 : PROBE_D4(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[4], const uint32_t (&a)[4], uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(8, 4, "k32.f32.e4m3.e4m3", "{%4, %5, %6, %7}", "8", "9", "")
                 : PROBE_D4(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

template <>
struct Wgmma<16> {
  static __device__ void bf16(float (&d)[8], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(16, 8, "k16.f32.bf16.bf16", "%8", "9", "10", ", 0, 0")
                 : PROBE_D8(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[8], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(16, 8, "k32.f32.e4m3.e4m3", "%8", "9", "10", "")
                 : PROBE_D8(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[8], const uint32_t (&a)[4], uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(16, 8, "k16.f32.bf16.bf16", "{%8, %9, %10, %11}", "12", "13", ", 0")
                 : PROBE_D8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[8], const uint32_t (&a)[4], uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(16, 8, "k32.f32.e4m3.e4m3", "{%8, %9, %10, %11}", "12", "13", "")
                 : PROBE_D8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

template <>
struct Wgmma<32> {
  static __device__ void bf16(float (&d)[16], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(32, 16, "k16.f32.bf16.bf16", "%16", "17", "18", ", 0, 0")
                 : PROBE_D16(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[16], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(32, 16, "k32.f32.e4m3.e4m3", "%16", "17", "18", "")
                 : PROBE_D16(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[16], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(PROBE_WGMMA(32, 16, "k16.f32.bf16.bf16", "{%16, %17, %18, %19}", "20", "21", ", 0")
                 : PROBE_D16(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[16], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(PROBE_WGMMA(32, 16, "k32.f32.e4m3.e4m3", "{%16, %17, %18, %19}", "20", "21", "")
                 : PROBE_D16(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

template <>
struct Wgmma<64> {
  static __device__ void bf16(float (&d)[32], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(64, 32, "k16.f32.bf16.bf16", "%32", "33", "34", ", 0, 0")
                 : PROBE_D32(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[32], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(64, 32, "k32.f32.e4m3.e4m3", "%32", "33", "34", "")
                 : PROBE_D32(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(PROBE_WGMMA(64, 32, "k16.f32.bf16.bf16", "{%32, %33, %34, %35}", "36", "37", ", 0")
                 : PROBE_D32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(PROBE_WGMMA(64, 32, "k32.f32.e4m3.e4m3", "{%32, %33, %34, %35}", "36", "37", "")
                 : PROBE_D32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

template <>
struct Wgmma<128> {
  static __device__ void bf16(float (&d)[64], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(128, 64, "k16.f32.bf16.bf16", "%64", "65", "66", ", 0, 0")
                 : PROBE_D64(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[64], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(128, 64, "k32.f32.e4m3.e4m3", "%64", "65", "66", "")
                 : PROBE_D64(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(
        PROBE_WGMMA(128, 64, "k16.f32.bf16.bf16", "{%64, %65, %66, %67}", "68", "69", ", 0")
        : PROBE_D64(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(PROBE_WGMMA(128, 64, "k32.f32.e4m3.e4m3", "{%64, %65, %66, %67}", "68", "69", "")
                 : PROBE_D64(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

template <>
struct Wgmma<256> {
  static __device__ void bf16(float (&d)[128], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(256, 128, "k16.f32.bf16.bf16", "%128", "129", "130", ", 0, 0")
                 : PROBE_D128(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void e4m3(float (&d)[128], uint64_t a, uint64_t b, int add) {
    asm volatile(PROBE_WGMMA(256, 128, "k32.f32.e4m3.e4m3", "%128", "129", "130", "")
                 : PROBE_D128(d, 0)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ void bf16_register(float (&d)[128], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(
        PROBE_WGMMA(256, 128, "k16.f32.bf16.bf16", "{%128, %129, %130, %131}", "132", "133", ", 0")
        : PROBE_D128(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
  static __device__ void e4m3_register(float (&d)[128], const uint32_t (&a)[4], uint64_t b,
                                       int add) {
    asm volatile(
        PROBE_WGMMA(256, 128, "k32.f32.e4m3.e4m3", "{%128, %129, %130, %131}", "132", "133", "")
        : PROBE_D128(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};

}  // namespace sluice::probe
#endif  // PROBE_SM90A
