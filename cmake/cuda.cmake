# CUDA is a second backend that a build may lack: without nvcc everything else is unchanged.
# Sanitizers, fuzzers and clang builds leave it out; the bodies of its kernels are tested on the host
# in every build (src/device/block.h).
if(SLUICE_CUDA STREQUAL "AUTO")
  set(SLUICE_CUDA_ON OFF)
  if(NOT SLUICE_SANITIZE AND NOT SLUICE_FUZZ AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    find_program(SLUICE_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(SLUICE_NVCC)
      set(SLUICE_CUDA_ON ON)
      set(CMAKE_CUDA_COMPILER ${SLUICE_NVCC})
    endif()
  endif()
else()
  set(SLUICE_CUDA_ON ${SLUICE_CUDA})
endif()

if(SLUICE_CUDA_ON)
  # sm_80: any data-centre or desktop GPU since Ampere, newer ones through PTX. sm_90a: Hopper's own.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  if(SLUICE_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${SLUICE_CCACHE})
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know how to ask nvcc for C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA_STANDARD 20)
  find_package(CUDAToolkit REQUIRED)
  add_compile_definitions(SLUICE_CUDA=1)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: kernels for ${CMAKE_CUDA_ARCHITECTURES}")
endif()

# One floating-point environment with the CPU's: no contraction, subnormals to zero, true division
# and square root. 2810: nvcc takes an assignment of a nodiscard class for an ignored result; g++ checks
# that rule. --expt-relaxed-constexpr lets bodies use the standard library's constexpr functions.
set(SLUICE_CUDA_FLAGS --fmad=false --ftz=true --prec-div=true --prec-sqrt=true
    --expt-relaxed-constexpr -Werror=all-warnings --diag-suppress=2810)
set(SLUICE_CUDA_HOST_FLAGS -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter -Wno-missing-field-initializers
    -ffp-contract=off -fvisibility=hidden -fno-math-errno)
