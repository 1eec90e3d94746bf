// SLUICE_HD marks functions that run on the host and, compiled by nvcc, on a GPU too: scalar
// definitions and the bodies of CUDA kernels. Nothing here includes a CUDA header.
#pragma once

#if defined(__CUDACC__)
#define SLUICE_HD __host__ __device__
#else
#define SLUICE_HD
#endif
