// One element of a task, and one row of kWeigh, scalar: the definition that every form repeats bit
// for bit.
#pragma once

#include "ops/elementwise/activate.h"
#include "ops/elementwise/kernels.h"

namespace sluice {

// kWeigh: the task of the one row that pair `pair` makes; no rows for a dropped pair.
SLUICE_HD static inline ElementwiseTask weighed_row(const ElementwiseTask& task, int64_t row) {
  const int64_t pair = task.first_pair + row;
  ElementwiseTask one = task;
  one.rows = task.slots[pair] < 0 ? 0 : 1;
  one.s = task.weights[pair];
  one.a = task.a + pair / task.fan_out * task.a_stride;
  one.b = one.a;
  one.out = task.out + (one.rows == 0 ? 0 : task.slots[pair]) * task.out_stride;
  return one;
}

SLUICE_HD inline float elementwise_value(const ElementwiseTask& task, float a, float b, float out) {
  switch (task.step) {
    case ElementwiseStep::kGlu:
      return activate(task.activation, a, b);
    case ElementwiseStep::kAdd:
      return out + b;
    case ElementwiseStep::kScale:
      return out * task.s;
    case ElementwiseStep::kWeigh:
      return bf16_if(task.rounded, task.s * a);
    case ElementwiseStep::kSoftcap:
      break;
  }
  return task.s * scalar::tanh(out / task.s);
}

}  // namespace sluice
