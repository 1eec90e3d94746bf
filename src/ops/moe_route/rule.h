// How a router chooses and weighs, as data: light enough for kernels to include.
#pragma once

#include <cstdint>

namespace sluice {

enum class RouteScore { kSoftmaxAll, kSoftmaxSelected, kSigmoid, kSqrtSoftplus };
// What competes: the score, or the logit it comes from (Llama 4, Mixtral). kSoftmaxSelected always
// selects by logit.
enum class RouteSelect { kScore, kLogit };
enum class GroupScore { kMax, kSumOf2 };
// Weight of the shared experts, which every token uses: 1, or the sigmoid of logits of their own.
enum class SharedWeight { kOne, kSigmoid };

// Experts in `count` equal consecutive groups, of which the best `kept` may be chosen from.
struct RouteGroups {
  int64_t count = 1, kept = 1;
  GroupScore score = GroupScore::kMax;
};

// Which values are rounded to bf16 (nearest even), as a chain of ops on bf16 tensors would.
struct RouteRounding {
  bool logits = false;   // as read
  bool scores = false;   // softmax or sigmoid, before selection and weighing
  bool weights = false;  // each result after that: sum, sum + epsilon, quotient, products
  bool out = false;      // the weights as written
};

struct RouteRule {
  RouteScore score = RouteScore::kSoftmaxAll;
  bool renormalise = false;
  float epsilon = 0.0f;
  float routed_scale = 1.0f;
  RouteSelect select = RouteSelect::kScore;
  RouteGroups groups;
  RouteRounding rounding;
  int64_t shared = 0;  // S shared experts, appended as ids E .. E+S-1
  SharedWeight shared_weight = SharedWeight::kOne;
};

}  // namespace sluice
