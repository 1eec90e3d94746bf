// What follows the weighted sum, as data: light enough for kernels to include.
#pragma once

namespace sluice {

enum class CombineThen { kStore, kResidualAdd, kRmsNorm };

}  // namespace sluice
