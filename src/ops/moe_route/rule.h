// How a router chooses and weighs, as data: light enough for kernels to include.
#pragma once

namespace sluice {

enum class RouteScore { kSoftmaxAll, kSoftmaxSelected, kSigmoid };

struct RouteRule {
  RouteScore score = RouteScore::kSoftmaxAll;
  bool renormalise = false;
  float epsilon = 0.0f;
  float routed_scale = 1.0f;
};

}  // namespace sluice
