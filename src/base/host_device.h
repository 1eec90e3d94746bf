// SLUICE_HD marks functions that run on the host and, compiled by nvcc, on a GPU too: scalar
// definitions and the bodies of CUDA kernels. Nothing here includes a CUDA header.
#pragma once

#if defined(__CUDACC__)
#define SLUICE_HD __host__ __device__
#define SLUICE_PRAGMA(text) _Pragma(#text)
#else
#define SLUICE_HD
#define SLUICE_PRAGMA(text)
#endif
// Before a loop of a kernel body: unrolled by nvcc, wholly (arrays that it indexes stay in
// registers) or by so much; other compilers decide for themselves.
#define SLUICE_UNROLL SLUICE_PRAGMA(unroll)
#define SLUICE_UNROLL_BY(n) SLUICE_PRAGMA(unroll n)
