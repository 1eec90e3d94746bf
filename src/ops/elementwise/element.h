// One element of a task, scalar: the definition that every form repeats bit for bit.
#pragma once

#include "ops/elementwise/activate.h"
#include "ops/elementwise/kernels.h"

namespace sluice {

SLUICE_HD inline float elementwise_value(const ElementwiseTask& task, float a, float b, float out) {
  switch (task.step) {
    case ElementwiseStep::kGlu:
      return activate(task.activation, a, b);
    case ElementwiseStep::kAdd:
      return out + b;
    case ElementwiseStep::kScale:
      return out * task.s;
    case ElementwiseStep::kSoftcap:
      break;
  }
  return task.s * scalar::tanh(out / task.s);
}

}  // namespace sluice
