#include "ops/sample/cuda_body.h"

namespace sluice {
namespace {

void draw(const SampleDraws& a) {
  sample_steps(a, [](const auto& body) { run_on_host(body.blocks(), body, body.shared_bytes()); });
}

}  // namespace

const SampleKernel sample_f32_cuda_host = {.draw = draw};

}  // namespace sluice
