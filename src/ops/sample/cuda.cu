#include "device/cuda/launch.cuh"
#include "ops/sample/cuda_body.h"

namespace sluice {
namespace {

void draw(const SampleDraws& a) {
  sample_steps(a, [&](const auto& body) {
    launch(a.stream, "sample", body.blocks(), body, body.shared_bytes());
  });
}

}  // namespace

const SampleKernel sample_f32_cuda = {.draw = draw};

}  // namespace sluice
